"""The caller's address behind proxies."""

import pytest

from homeserver.web.client_address import TrustedProxies, rate_limit_address

PROXIES = TrustedProxies(["10.0.0.0/8", "::1/128", "192.168.1.7"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not our proxy: anybody can write that
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("::1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.2.3", "2001:DB8::1", "2001:db8::1"),
        ("10.1.2.3", "1.1.1.1, 198.51.100.1, 10.9.9.9", "198.51.100.1"),  # the first was made up by the client
        ("10.1.2.3", "10.0.0.5, 192.168.1.7", "10.0.0.5"),
        ("10.1.2.3", "198.51.100.1:5678", "198.51.100.1"),
        ("10.1.2.3", "[2001:db8::1]:5678", "2001:db8::1"),
        ("10.1.2.3", "198.51.100.1, nonsense", "10.1.2.3"),
        ("10.1.2.3", "nonsense, 10.0.0.1", "10.0.0.1"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", None, "10.1.2.3"),
        (None, "198.51.100.1", "198.51.100.1"),
        (None, None, ""),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str | None, forwarded_for: str | None, address: str) -> None:
    assert PROXIES.client_address(peer=peer, forwarded_for=forwarded_for) == address


def test_without_proxies_the_header_says_nothing() -> None:
    assert TrustedProxies([]).client_address(peer="10.1.2.3", forwarded_for="1.1.1.1") == "10.1.2.3"


def test_a_wrong_network_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="10"):
        TrustedProxies(["10.0.0.0/99"])


def test_one_customer_is_one_address() -> None:
    assert rate_limit_address("203.0.113.9") == "203.0.113.9"
    assert rate_limit_address("2001:db8:1:2:3::4") == rate_limit_address("2001:db8:1:2::9")
    assert rate_limit_address("2001:db8:1:2::9") != rate_limit_address("2001:db8:1:3::9")
    assert rate_limit_address("::ffff:203.0.113.9") == "203.0.113.9"
