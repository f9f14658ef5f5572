"""Pages of the web for previews, through the one client for calls to other hosts."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from yarl import URL

from homeserver.net.errors import CallFailed
from homeserver.net.http_client import CallLimits, HttpClient, OutgoingRequest
from homeserver.services.media.ports import PageUnavailable, WebPage

REDIRECTS_MAX: Final = 5


class HttpWebPages:
    """`WebPages` over the network: to checked addresses only, also where a page redirects to."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @asynccontextmanager
    async def open(
        self, url: str, *, accept_language: str, bytes_max: int, timeout_seconds: float
    ) -> AsyncIterator[WebPage]:
        """A page; see `WebPages`."""
        headers = {"Accept": "text/html,application/xhtml+xml,image/*,*/*;q=0.5", "Accept-Language": accept_language}
        request = OutgoingRequest(method="GET", url=_encoded(url), headers=headers, redirects_max=REDIRECTS_MAX)
        limits = CallLimits(total_seconds=timeout_seconds, bytes_max=bytes_max)
        try:
            async with self._http.open(request, limits) as answer, aclosing(answer.chunks()) as chunks:
                yield WebPage(url=answer.url, status=answer.status, headers=answer.headers, chunks=chunks)
        except CallFailed as error:
            raise PageUnavailable(str(error)) from error


def _encoded(url: str) -> str:
    """A URL as it is sent.

    Raises:
        PageUnavailable: it cannot be.
    """
    try:
        return str(URL(url))
    except ValueError as error:
        raise PageUnavailable("Not a URL that can be fetched") from error
