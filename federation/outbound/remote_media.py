"""Other servers' media: asked for with our signature, or, of servers that do not know that yet, as anybody could.

https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import quote

from federation.outbound.client import FederationClient
from federation.wire.multipart import WrongMultipart, boundary_of, read_multipart
from federation.wire.paths import federation_path
from homeserver.core.content_disposition import file_name_of
from homeserver.core.errors import RemoteRefused, RemoteUnavailable, TooLarge
from homeserver.core.ids import MxcUri
from homeserver.net.errors import AnswerTooLarge, CallFailed
from homeserver.net.http_client import CallLimits, HttpClient, OpenAnswer, OutgoingRequest
from homeserver.services.media.ports import RemoteFile

FETCH_SECONDS_MAX: Final = 600.0
"""For a whole file."""
HEAD_SECONDS_MAX: Final = 90.0
"""Until a file begins to come; the other server may wait for its upload."""
REDIRECTS_MAX: Final = 3

_UNRECOGNIZED: Final = "M_UNRECOGNIZED"
_MULTIPART_BYTES_MAX: Final = 128 * 1024


class FederationMedia:
    """Fetches media over the network; `RemoteMediaSource`."""

    def __init__(self, *, client: FederationClient, http: HttpClient) -> None:
        """Takes what asks servers, and what follows where they lead, without a signature."""
        self._client = client
        self._http = http

    @asynccontextmanager
    async def open(self, uri: MxcUri, *, bytes_max: int, timeout_ms: int) -> AsyncIterator[RemoteFile]:
        """A medium; see `RemoteMediaSource`."""
        async with AsyncExitStack() as stack:
            stack.enter_context(_Failures(uri))
            try:
                file = await self._authenticated(uri, bytes_max, timeout_ms, stack)
            except RemoteRefused as error:
                if error.status not in (404, 405) or error.remote_errcode != _UNRECOGNIZED:
                    raise
                file = await self._unauthenticated(uri, bytes_max, timeout_ms, stack)
            yield file

    async def _authenticated(self, uri: MxcUri, bytes_max: int, timeout_ms: int, stack: AsyncExitStack) -> RemoteFile:
        path = federation_path("v1", "media", "download", uri.media_id)
        query = {"timeout_ms": str(timeout_ms)}
        answer = await self._asked(uri, path, query, bytes_max + _MULTIPART_BYTES_MAX, stack)
        boundary = boundary_of(answer.headers.get("content-type", ""))
        part = await read_multipart(_closed_by(stack, answer), boundary)
        stack.push_async_callback(part.chunks.aclose)
        location = part.headers.get("location")
        if location is not None:
            return await self._redirected(location, bytes_max, stack)
        return RemoteFile(
            content_type=part.headers.get("content-type"),
            file_name=file_name_of(part.headers.get("content-disposition")),
            chunks=part.chunks,
        )

    async def _unauthenticated(self, uri: MxcUri, bytes_max: int, timeout_ms: int, stack: AsyncExitStack) -> RemoteFile:
        path = f"/_matrix/media/v3/download/{quote(uri.server_name, safe='')}/{uri.media_id}"
        query = {"allow_remote": "false", "timeout_ms": str(timeout_ms)}
        return _file(await self._asked(uri, path, query, bytes_max, stack), stack)

    async def _asked(
        self, uri: MxcUri, path: str, query: Mapping[str, str], bytes_max: int, stack: AsyncExitStack
    ) -> OpenAnswer:
        """The answer of the medium's server, whose body is still to come."""
        call = self._client.open(
            uri.server_name, path, query=query, bytes_max=bytes_max, timeout_seconds=FETCH_SECONDS_MAX
        )
        async with asyncio.timeout(HEAD_SECONDS_MAX):
            return await stack.enter_async_context(call)

    async def _redirected(self, location: str, bytes_max: int, stack: AsyncExitStack) -> RemoteFile:
        """What lies where the other server has put it; its address is checked as any other."""
        if not location.lower().startswith("https://"):
            raise RemoteUnavailable("The other server leads to an unprotected connection")
        answer = await stack.enter_async_context(
            self._http.open(
                OutgoingRequest(method="GET", url=location, redirects_max=REDIRECTS_MAX),
                CallLimits(total_seconds=FETCH_SECONDS_MAX, bytes_max=bytes_max),
            )
        )
        if answer.status != 200:
            raise RemoteUnavailable(f"Where the other server leads to, there is the status {answer.status}")
        return _file(answer, stack)


def _file(answer: OpenAnswer, stack: AsyncExitStack) -> RemoteFile:
    return RemoteFile(
        content_type=answer.headers.get("content-type"),
        file_name=file_name_of(answer.headers.get("content-disposition")),
        chunks=_closed_by(stack, answer),
    )


def _closed_by(stack: AsyncExitStack, answer: OpenAnswer) -> AsyncGenerator[bytes, None]:
    chunks = answer.chunks()
    stack.push_async_callback(chunks.aclose)
    return chunks


class _Failures:
    """Lets what goes wrong in reading leave as errors for the asker."""

    def __init__(self, uri: MxcUri) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # The client has told of an answer that is too large in its own way.
        if isinstance(error, AnswerTooLarge) or (error is not None and isinstance(error.__cause__, AnswerTooLarge)):
            raise TooLarge(f"The content {self._uri} is too large") from error
        if isinstance(error, CallFailed | WrongMultipart | TimeoutError):
            raise RemoteUnavailable(f"The content {self._uri} does not come") from error
