"""Request bodies: read within limits of size and time, and parsed as JSON whatever `Content-Type` says.

https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import MatrixError, NotJson, TooLarge

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
"""What an ASGI server hands over to receive messages."""

JSON_DEPTH_MAX: Final = 100
"""How deep the JSON of a request may be nested; events are far flatter."""


class ClientDisconnected(Exception):
    """The client went away before its request was complete."""


class RequestTimeout(MatrixError):
    """The body did not arrive in time."""

    default_status = 408


class IncomingBody(Protocol):
    """A body that has not been read yet."""

    async def read(self, *, bytes_max: int) -> bytes:
        """Reads it to its end.

        Raises:
            TooLarge: it is larger than `bytes_max`.
            RequestTimeout: it takes too long.
            ClientDisconnected: the client went away.
        """
        ...

    def stream(self, *, bytes_max: int) -> AsyncIterator[bytes]:
        """Its parts as they come; raises as `read` does."""
        ...


class AsgiBody:
    """A body that comes through ASGI messages."""

    def __init__(
        self,
        receive: Receive,
        *,
        content_length: str | None,
        read_seconds: float,
        chunk_seconds: float,
        is_absent: bool = False,
    ) -> None:
        """Prepares for reading.

        Args:
            receive: ASGI's.
            content_length: the header's value, if there is one.
            read_seconds: the time for a body that is read as a whole.
            chunk_seconds: the time for each part of a body that is streamed.
            is_absent: the request says that it has none.
        """
        self._receive = receive
        self._content_length = content_length
        self._read_seconds = read_seconds
        self._chunk_seconds = chunk_seconds
        self._is_absent = is_absent
        self.complete = is_absent

    async def read(self, *, bytes_max: int) -> bytes:
        """Reads the body to its end; see `IncomingBody`."""
        self._check_announced(bytes_max)
        if self._is_absent:
            return b""
        try:
            async with asyncio.timeout(self._read_seconds):
                chunk = await self._next_chunk()
                if self.complete and len(chunk) <= bytes_max:
                    return chunk
                whole = bytearray(chunk)
                while not self.complete and len(whole) <= bytes_max:
                    whole += await self._next_chunk()
        except TimeoutError:
            raise RequestTimeout("The body did not arrive in time") from None
        if len(whole) > bytes_max:
            raise _too_large(bytes_max)
        return bytes(whole)

    async def stream(self, *, bytes_max: int) -> AsyncIterator[bytes]:
        """The body's parts as they come; see `IncomingBody`."""
        self._check_announced(bytes_max)
        size_bytes = 0
        while not self.complete:
            try:
                async with asyncio.timeout(self._chunk_seconds):
                    chunk = await self._next_chunk()
            except TimeoutError:
                raise RequestTimeout("The body did not arrive in time") from None
            size_bytes += len(chunk)
            if size_bytes > bytes_max:
                raise _too_large(bytes_max)
            if chunk:
                yield chunk

    async def discard(self, *, bytes_max: int, seconds: float) -> None:
        """Reads on and drops what comes, within limits, so that a client that still sends can see the answer."""
        size_bytes = 0
        try:
            async with asyncio.timeout(seconds):
                while not self.complete and size_bytes <= bytes_max:
                    size_bytes += len(await self._next_chunk())
        except (TimeoutError, ClientDisconnected):
            return

    async def disconnected(self) -> None:
        """Waits until the client goes away; only after the body was read to its end."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next_chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _check_announced(self, bytes_max: int) -> None:
        """Refuses a body that says itself that it is too large, before any of it is read."""
        announced = self._content_length
        if announced is not None and announced.isdecimal() and int(announced[:20]) > bytes_max:
            raise _too_large(bytes_max)


class GivenBody:
    """A body that is there already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self, *, bytes_max: int) -> bytes:
        """Hands over the body; see `IncomingBody`."""
        if len(self._content) > bytes_max:
            raise _too_large(bytes_max)
        return self._content

    async def stream(self, *, bytes_max: int) -> AsyncIterator[bytes]:
        """Hands over the body in one part; see `IncomingBody`."""
        yield await self.read(bytes_max=bytes_max)


def parse_body(raw: bytes, *, required: bool) -> Any:
    """Parses the JSON of a body; an empty one is `{}` where the endpoint does not require a body.

    Raises:
        NotJson: it is no JSON in UTF-8, or nested too deeply.
    """
    if not raw:
        if required:
            raise NotJson("The request has no body, but needs one in JSON")
        return {}
    return parse_json(raw, depth_max=JSON_DEPTH_MAX)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes")
