"""The ports that the server listens on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from homeserver.config.values import ExistingFile, IpNetwork, Port

Resource: TypeAlias = Literal["client", "federation", "media", "admin", "metrics", "health"]


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The certificate of a listener that speaks TLS itself, without a reverse proxy."""

    certificate: ExistingFile
    """The certificate with its chain, in PEM form."""
    private_key: ExistingFile
    """The certificate's private key, in PEM form."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """A port that the server listens on, and what it serves there."""

    port: Port
    """The TCP port; 0 takes a free one."""
    bind_addresses: tuple[str, ...] = ("127.0.0.1",)
    """The addresses to listen on: `0.0.0.0` is every IPv4 address, `::` every IPv6 address. Behind a reverse proxy keep
    the default."""
    resources: tuple[Resource, ...] = ("client", "federation", "media", "admin", "health")
    """What is served: `client`, `federation`, `media`, `admin`, `metrics` and `health`; all else is not found here.
    `metrics` is for nobody but your monitoring: give it a listener of its own if the port is open to the world."""
    tls: TlsConfig | None = None
    """Certificate and key, to speak TLS on this port: `{certificate: tls.crt, private_key: tls.key}`."""
    x_forwarded: tuple[IpNetwork, ...] = ()
    """The addresses of reverse proxies whose `X-Forwarded-For` is believed, for example `[127.0.0.1]`. From anybody
    else the header is ignored, for rate limits count by address."""
