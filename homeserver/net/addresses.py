"""Which addresses this server may connect to on behalf of others: never into the network that it stands in itself.

An IPv6 address may carry an IPv4 address to which something on the way passes the packets on (mapped, 6to4, NAT64,
Teredo, ISATAP); such an address is good only if all that it stands for is.

https://www.iana.org/assignments/iana-ipv6-special-registry/
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from homeserver.config.values import IpNetwork

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Prefixes whose addresses end with an IPv4 address: IPv4-compatible, IPv4-mapped, IPv4-translated, and NAT64.
_EMBEDDING: Final = tuple(
    ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
# NAT64 of a local network: operators place the IPv4 address where RFC 6052 lets them, so every place is looked at.
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ISATAP_IDENTIFIERS: Final = frozenset((0x00005EFE, 0x02005EFE))


class AddressPolicy:
    """Decides about addresses by two lists of ranges; the allowlist holds where both apply."""

    def __init__(self, *, blocklist: Sequence[IpNetwork], allowlist: Sequence[IpNetwork] = ()) -> None:
        self._blocklist = tuple(blocklist)
        self._allowlist = tuple(allowlist)

    def allows(self, address: str) -> bool:
        """Whether this server may connect to an address, which may have a scope (`fe80::1%eth0`).

        False for what is no address, too.
        """
        parsed = parse_address(address)
        return parsed is not None and all(self._allows_one(meant) for meant in _all_meant(parsed))

    def _allows_one(self, address: IpAddress) -> bool:
        blocked = any(address in network for network in self._blocklist)
        return not blocked or any(address in network for network in self._allowlist)


def parse_address(text: str) -> IpAddress | None:
    """Reads an IP address, without its scope; None for anything else."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _all_meant(address: IpAddress) -> Iterator[IpAddress]:
    """An address, and those that a packet sent to it may end at."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    if any(address in network for network in _EMBEDDING) and number > 1:  # `::` and `::1` are what they are
        yield _ipv4(number)
    elif address in _LOCAL_NAT64:
        yield from _in_local_nat64(number)
    elif address in _SIX_TO_FOUR:
        yield _ipv4(number >> 80)
    elif address in _TEREDO:
        yield _ipv4(number >> 64)
        yield _ipv4(~number)
    if number >> 32 & 0xFFFFFFFF in _ISATAP_IDENTIFIERS:
        yield _ipv4(number)


def _in_local_nat64(number: int) -> Iterator[ipaddress.IPv4Address]:
    """What follows a prefix of 48, 56, 64 or 96 bits, where bits 64 to 71 belong to nobody (RFC 6052, 2.2)."""
    without_gap = number >> 64 << 56 | number & 0xFFFFFFFFFFFFFF
    for prefix_bits in (48, 56, 64):
        yield _ipv4(without_gap >> 120 - 32 - prefix_bits)
    yield _ipv4(number)


def _ipv4(number: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(number & 0xFFFFFFFF)
