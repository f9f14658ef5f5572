"""Talking with other servers."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from homeserver.config.values import ExistingFile, IpNetwork
from homeserver.core.ids import ServerName

PRIVATE_RANGES: Final[tuple[IpNetwork, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class KeyServerConfig:
    """A server that is asked for the signing keys of others (a notary)."""

    server_name: ServerName
    """Its name."""
    verify_keys: Mapping[str, str] = field(default_factory=dict)
    """Its own keys, by key id, in base64. Without them the TLS connection alone vouches for it."""


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """Talking with other servers."""

    enabled: bool = True
    """Whether this server takes part in federation at all."""
    verify_certificates: bool = True
    """Whether other servers must show a certificate that is good for their name. Never turn this off but for tests."""
    ca_file: ExistingFile | None = None
    """Certificate authorities to trust, in PEM form, in place of those of the system."""
    ip_range_blocklist: tuple[IpNetwork, ...] = PRIVATE_RANGES
    """Addresses that the server never connects to on behalf of others, for federation, push and previews."""
    ip_range_allowlist: tuple[IpNetwork, ...] = ()
    """Addresses that it connects to nevertheless, for example `[10.1.2.3]` for a server in your own network."""
    trusted_key_servers: tuple[KeyServerConfig, ...] = ()
    """Servers that are asked for the keys of servers that cannot be reached: `[{server_name: example.com}]`."""
    denied_keys: tuple[str, ...] = ()
    """Signing keys that nobody's signatures are accepted from, because they have become known: each as it is published,
    in base64, or as the SHA-256 of its 32 bytes in hexadecimal digits."""
    allowed_servers: tuple[str, ...] | None = None
    """The only servers to talk with, by name; `*` and `?` stand for any characters. `null`: all."""
    denied_servers: tuple[str, ...] = ()
    """Servers not to talk with, neither by our own accord nor when they ask; written as `allowed_servers`."""
    faster_joins: bool = True
    """Whether users are in a room of other servers as soon as most of its state has come; its members follow."""
