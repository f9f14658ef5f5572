"""Which addresses may be connected to (S34): also where an IPv6 address stands for an IPv4 address."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.config.schema import PRIVATE_RANGES
from homeserver.net.addresses import AddressPolicy

POLICY = AddressPolicy(blocklist=PRIVATE_RANGES)


def teredo(*, server: str, client: str) -> str:
    """The Teredo address of a client behind a server, as RFC 4380 builds it."""
    number = 0x20010000 << 96 | int(ipaddress.IPv4Address(server)) << 64
    return str(ipaddress.IPv6Address(number | 0xFFFFFFFF ^ int(ipaddress.IPv4Address(client))))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:0808:0808::1"])
def test_public_addresses_are_good(address: str) -> None:
    assert POLICY.allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::",
        "fe80::5efe:10.0.0.1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        teredo(server="8.8.8.8", client="192.168.0.1"),
        teredo(server="10.0.0.1", client="8.8.8.8"),
    ],
)
def test_addresses_of_the_own_network_are_not(address: str) -> None:
    assert not POLICY.allows(address)


@pytest.mark.parametrize("text", ["", "example.org", "127.1", "2130706433", "1.1.1.1.1", "[::1]", "0x7f.1"])
def test_what_is_no_address_is_not_good(text: str) -> None:
    assert not AddressPolicy(blocklist=()).allows(text)


# RFC 6052, 2.4: 192.0.2.33 below prefixes of these lengths.
@pytest.mark.parametrize("text", ["64:ff9b:1:c000:2:2100::", "64:ff9b:1:c0:0:221::", "64:ff9b:1:0:c0:2:2100::"])
def test_a_local_nat64_is_seen_through_whatever_its_prefix(text: str) -> None:
    policy = AddressPolicy(blocklist=[ipaddress.ip_network("192.0.2.33/32")])
    assert not policy.allows(text)


def test_the_allowlist_wins() -> None:
    policy = AddressPolicy(blocklist=PRIVATE_RANGES, allowlist=[ipaddress.ip_network("10.1.2.3/32")])
    assert policy.allows("10.1.2.3")
    assert policy.allows("2002:0a01:0203::1")
    assert not policy.allows("10.1.2.4")


def test_loopback_can_be_allowed() -> None:
    policy = AddressPolicy(blocklist=PRIVATE_RANGES, allowlist=[ipaddress.ip_network("::1/128")])
    assert policy.allows("::1")


@given(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_like_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    disguises = [
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        teredo(server="8.8.8.8", client=str(address)),
    ]
    assert {POLICY.allows(each) for each in disguises} == {POLICY.allows(str(address))}
