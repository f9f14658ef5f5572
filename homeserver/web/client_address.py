"""The address of the caller, also behind reverse proxies, whose `X-Forwarded-For` counts only if they are trusted."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_IPV6_CUSTOMER_BITS: Final = 64


class TrustedProxies:
    """The networks whose word about the caller's address is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Takes the networks in CIDR notation.

        Raises:
            ValueError: one of them is none.
        """
        self._networks = tuple(ip_network(network, strict=False) for network in networks)

    def client_address(self, *, peer: str | None, forwarded_for: str | None) -> str:
        """The caller's address: the last one of the chain that is no trusted proxy.

        Args:
            peer: the other end of the connection; None for a socket of this machine's file system, which is trusted.
            forwarded_for: all values of `X-Forwarded-For`, joined with commas.
        """
        if peer is not None:
            peer = _normal(peer) or peer
        if forwarded_for is None or not self._networks or not (peer is None or self._trusts(peer)):
            return peer or ""
        address = peer or ""
        for text in reversed(forwarded_for.split(",")):
            hop = _normal(text.strip())
            if hop is None:  # made up by a client; the proxy before it is the last that we know
                break
            address = hop
            if not self._trusts(hop):
                break
        return address

    def _trusts(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def rate_limit_address(address: str) -> str:
    """The part of an address that stands for one caller: an IPv4 address, or the /64 network of an IPv6 address."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _IPV6_CUSTOMER_BITS), strict=False))
    return address if parsed is None else str(parsed)


@lru_cache(maxsize=4096)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def _normal(text: str) -> str | None:
    """An address in its usual form, without the port that some proxies add; None if it is none."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    parsed = _parse(host)
    return None if parsed is None else str(parsed)
