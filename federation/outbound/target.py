"""Where a server is asked: what discovery finds out about its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from homeserver.core.ids import ServerName


@dataclass(frozen=True, slots=True)
class Target:
    """A place where a server may listen.

    Attributes:
        host: what is connected to: a host name, or an IP literal (IPv6 in brackets).
        port: the TCP port.
        host_header: the value of the `Host` header.
        tls_name: the host name that the certificate must be for; None: the IP literal in `host`.
    """

    host: str
    port: int
    host_header: str
    tls_name: str | None

    @property
    def base_url(self) -> str:
        """The URL of its root, without a slash at the end."""
        return f"https://{self.host}:{self.port}"


class Discovery(Protocol):
    """Finds out where servers are."""

    async def targets(self, server_name: ServerName) -> Sequence[Target]:
        """Where a server may be, the place to try first at the front; at least one.

        Raises:
            RemoteUnavailable: it says itself that it is nowhere.
        """
        ...
