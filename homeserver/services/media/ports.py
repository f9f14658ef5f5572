"""What media needs of the world outside: other servers' media, and pages of the web."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import MxcUri


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file that is coming from another server: what that says of it, and its bytes, piece by piece."""

    content_type: str | None
    file_name: str | None
    chunks: AsyncIterator[bytes]


class RemoteMediaSource(Protocol):
    """Asks other servers for their media."""

    def open(self, uri: MxcUri, *, bytes_max: int, timeout_ms: int) -> AbstractAsyncContextManager[RemoteFile]:
        """A medium, read inside the block.

        Args:
            uri: which; its server is another one.
            bytes_max: the largest that is taken.
            timeout_ms: how long the other server may wait for an upload to come.

        Raises:
            TooLarge: it is larger (also while it is read).
            RemoteUnavailable, RemoteRefused: it does not come.
        """
        ...


class NoRemoteMedia:
    """`RemoteMediaSource` of a server that does not federate."""

    def open(self, uri: MxcUri, *, bytes_max: int, timeout_ms: int) -> AbstractAsyncContextManager[RemoteFile]:
        """Refuses."""
        raise RemoteUnavailable(f"The server {uri.server_name} cannot be asked: this server does not federate")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPage:
    """An answer of a web server; `url` is where it came from in the end, header names are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class PageUnavailable(Exception):
    """A page does not come: no such host, one that may not be asked, too slow, too large, or no proper HTTP."""


class WebPages(Protocol):
    """Asks web servers, none of which stands in the network of this one."""

    def open(
        self, url: str, *, accept_language: str, bytes_max: int, timeout_seconds: float
    ) -> AbstractAsyncContextManager[WebPage]:
        """A page, read inside the block.

        Raises:
            PageUnavailable: it does not come (also while it is read).
        """
        ...
