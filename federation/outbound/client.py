"""Asks other servers: finds them, signs, bounds, and tells the shared back-off how it went.

https://spec.matrix.org/v1.19/server-server-api/#api-standards
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from federation.outbound.answers import (
    ERROR_BYTES_MAX,
    IN_LOOP_BYTES_MAX,
    LIMIT_EXCEEDED_STATUS,
    UNKNOWN,
    parse_answer,
    parse_refusal,
    retry_after_ms,
)
from federation.outbound.backoff import Destinations
from federation.outbound.slots import RequestSlots
from federation.outbound.target import Discovery, Target
from federation.wire.allowed_servers import AllowedServers
from federation.wire.paths import Query, with_query
from federation.wire.x_matrix import XMatrix
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.errors import NotJson, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import ServerName
from homeserver.core.signing import SigningKey
from homeserver.net.errors import AnswerTooLarge, CallFailed, ConnectionLost, NotConnected
from homeserver.net.http_client import CallLimits, HttpClient, OpenAnswer, OutgoingRequest
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 30.0
BYTES_MAX: Final = 16 * 1024 * 1024
NO_QUERY: Final[Query] = MappingProxyType({})

CONNECT_SECONDS_MAX: Final = 10.0
TARGETS_MAX: Final = 4
RETRIES_MAX: Final = 1
RETRY_SECONDS: Final = 0.3
# Answers of what stands in front of a homeserver that is away.
_AWAY: Final = frozenset((502, 503, 504))
# What a homeserver itself says with these statuses, about media.
_OF_MEDIA: Final = frozenset(("M_NOT_YET_UPLOADED", "M_TOO_LARGE"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One request, and what it may take; `content` is the body in canonical JSON."""

    method: str
    destination: ServerName
    uri: str
    content: bytes | None = field(repr=False)
    timeout_seconds: float
    bytes_max: int
    retry_failed: bool

    @property
    def is_idempotent(self) -> bool:
        """Whether it may be sent twice: PUTs name what they hand in."""
        return self.method != "POST"


class FederationClient:
    """What everything that asks other servers goes through.

    All requests take these arguments:
        destination: the server, by its name.
        path: percent-encoded, from `/_matrix` on; see `federation.wire.paths`.
        body: a JSON object, or canonical JSON as bytes.
        query: parameters, not encoded.
        timeout_seconds: for all of it, with finding the server and waiting for a slot.
        bytes_max: of the answer.
        retry_failed: asks even a server that has failed and is left alone for now.

    All of them raise:
        RemoteUnavailable: it cannot be asked now, may not be asked, or answers nonsense.
        RemoteRefused: it has answered with an error.

    How it went goes to `Destinations`: answers, errors of a homeserver among them, are successes; no connection, no
    answer in time, no JSON, and 502 to 504 are failures. Other 5xx say nothing, for one broken room must not cut a
    whole server off: whoever cannot go on without that request calls `Destinations.failed` itself.
    """

    def __init__(
        self,
        *,
        http: HttpClient,
        discovery: Discovery,
        destinations: Destinations,
        servers: AllowedServers,
        server_name: ServerName,
        key: SigningKey,
        clock: Clock,
        slots: RequestSlots | None = None,
    ) -> None:
        self._http = http
        self._discovery = discovery
        self._destinations = destinations
        self._servers = servers
        self._server_name = server_name
        self._key = key
        self._clock = clock
        self._slots = slots or RequestSlots()

    async def get(
        self,
        destination: ServerName,
        path: str,
        *,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        bytes_max: int = BYTES_MAX,
        retry_failed: bool = False,
    ) -> Any:
        """The JSON that a GET is answered with."""
        return await self._json(
            _Call(
                method="GET",
                destination=destination,
                uri=with_query(path, query),
                content=None,
                timeout_seconds=timeout_seconds,
                bytes_max=bytes_max,
                retry_failed=retry_failed,
            )
        )

    async def put(
        self,
        destination: ServerName,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        bytes_max: int = BYTES_MAX,
        retry_failed: bool = False,
    ) -> Any:
        """The JSON that a PUT is answered with."""
        return await self._json(
            _Call(
                method="PUT",
                destination=destination,
                uri=with_query(path, query),
                content=_encoded(body),
                timeout_seconds=timeout_seconds,
                bytes_max=bytes_max,
                retry_failed=retry_failed,
            )
        )

    async def post(
        self,
        destination: ServerName,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        bytes_max: int = BYTES_MAX,
        retry_failed: bool = False,
    ) -> Any:
        """The JSON that a POST is answered with; it is never sent twice."""
        return await self._json(
            _Call(
                method="POST",
                destination=destination,
                uri=with_query(path, query),
                content=_encoded(body),
                timeout_seconds=timeout_seconds,
                bytes_max=bytes_max,
                retry_failed=retry_failed,
            )
        )

    async def get_streamed(
        self,
        destination: ServerName,
        path: str,
        *,
        bytes_max: int,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_failed: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """The body that a GET is answered with, in pieces, as it comes. Close the iterator (`aclosing`)."""
        call = _Call(
            method="GET",
            destination=destination,
            uri=with_query(path, query),
            content=None,
            timeout_seconds=timeout_seconds,
            bytes_max=bytes_max,
            retry_failed=retry_failed,
        )
        async with self._answered(call) as answer, aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def put_streamed(
        self,
        destination: ServerName,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        bytes_max: int,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_failed: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """The body that a PUT is answered with, in pieces, as it comes. Close the iterator (`aclosing`)."""
        call = _Call(
            method="PUT",
            destination=destination,
            uri=with_query(path, query),
            content=_encoded(body),
            timeout_seconds=timeout_seconds,
            bytes_max=bytes_max,
            retry_failed=retry_failed,
        )
        async with self._answered(call) as answer, aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def open(
        self,
        destination: ServerName,
        path: str,
        *,
        bytes_max: int,
        query: Query = NO_QUERY,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_failed: bool = False,
    ) -> AsyncIterator[OpenAnswer]:
        """What a GET is answered with, once its head is there; the body is read inside the block."""
        call = _Call(
            method="GET",
            destination=destination,
            uri=with_query(path, query),
            content=None,
            timeout_seconds=timeout_seconds,
            bytes_max=bytes_max,
            retry_failed=retry_failed,
        )
        async with self._answered(call) as answer:
            yield answer

    async def _json(self, call: _Call) -> Any:
        async with self._answered(call) as answer:
            return await parse_answer(await answer.read())

    @asynccontextmanager
    async def _answered(self, call: _Call) -> AsyncIterator[OpenAnswer]:
        """The answer to a request, if it is no error; what the block raises in reading it counts as the server's."""
        destination = call.destination
        if destination == self._server_name or not self._servers.allows(destination):
            raise RemoteUnavailable(f"This server does not talk with {destination}")
        if not call.retry_failed and not await self._destinations.is_due(destination):
            raise RemoteUnavailable(f"The server {destination} could not be reached a moment ago")
        try:
            async with AsyncExitStack() as stack:
                ends = self._clock.monotonic() + call.timeout_seconds
                await self._take_slot(call, stack)
                async with asyncio.timeout(max(ends - self._clock.monotonic(), 0)):
                    answer = await self._open(call, ends, stack)
                    if not 200 <= answer.status < 300:
                        raise await self._refused(call, answer)
                yield answer
        except AnswerTooLarge as error:
            raise RemoteUnavailable(f"The answer of {destination} is too large") from error
        except (CallFailed, NotJson, TimeoutError) as error:
            logger.info("%s %s of %s failed: %s", call.method, call.uri, destination, str(error) or "timeout")
            await self._noted(self._destinations.failed(destination))
            raise RemoteUnavailable(f"The server {destination} cannot be asked") from error
        await self._noted(self._destinations.succeeded(destination))

    async def _take_slot(self, call: _Call, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(call.timeout_seconds):
                await stack.enter_async_context(self._slots.taken(call.destination))
        except TimeoutError:
            raise RemoteUnavailable(f"Too many requests to {call.destination} are waiting") from None

    async def _open(self, call: _Call, ends: float, stack: AsyncExitStack) -> OpenAnswer:
        """The first answer: of the first place that can be connected to, and once more if the connection broke."""
        targets = (await self._discovery.targets(call.destination))[:TARGETS_MAX]
        authorization = await self._authorization(call)
        for attempt in range(RETRIES_MAX + 1):
            try:
                return await self._open_any(call, targets, authorization, ends, stack)
            except ConnectionLost:
                if not call.is_idempotent or attempt == RETRIES_MAX:
                    raise
            await self._clock.sleep(RETRY_SECONDS * (1 + secrets.randbelow(1000) / 1000))
        raise AssertionError("the last attempt returns or raises")

    async def _open_any(
        self, call: _Call, targets: Sequence[Target], authorization: str, ends: float, stack: AsyncExitStack
    ) -> OpenAnswer:
        failure: NotConnected | None = None
        for target in targets:
            headers = {"Host": target.host_header, "Authorization": authorization, "Accept": "application/json"}
            if call.content is not None:
                headers["Content-Type"] = "application/json"
            request = OutgoingRequest(
                method=call.method,
                url=target.base_url + call.uri,
                headers=headers,
                body=call.content,
                tls_name=target.tls_name,
            )
            limits = CallLimits(
                total_seconds=max(ends - self._clock.monotonic(), 0.001),
                connect_seconds=CONNECT_SECONDS_MAX,
                bytes_max=call.bytes_max,
            )
            try:
                return await stack.enter_async_context(self._http.open(request, limits))
            except NotConnected as error:
                failure = error
        raise failure or NotConnected(f"{call.destination} is nowhere")

    async def _authorization(self, call: _Call) -> str:
        def sign() -> str:
            return XMatrix.sign(
                method=call.method,
                uri=call.uri,
                origin=self._server_name,
                destination=call.destination,
                content=call.content,
                key=self._key,
            ).format()

        is_large = call.content is not None and len(call.content) > IN_LOOP_BYTES_MAX
        return await asyncio.to_thread(sign) if is_large else sign()

    async def _refused(self, call: _Call, answer: OpenAnswer) -> RemoteRefused | RemoteUnavailable:
        """Reads an error, and says what it means for the server."""
        body = bytearray()
        try:
            async with aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > ERROR_BYTES_MAX:
                        break
        except AnswerTooLarge:
            body.clear()
        refused = parse_refusal(call.destination, status=answer.status, body=bytes(body))
        if answer.status == LIMIT_EXCEEDED_STATUS:
            pause_ms = retry_after_ms(refused, answer.headers)
            await self._noted(self._destinations.paused(call.destination, retry_after_ms=pause_ms))
        elif refused.remote_errcode in _OF_MEDIA:
            await self._noted(self._destinations.succeeded(call.destination))
        elif answer.status in _AWAY or answer.status < 400:
            await self._noted(self._destinations.failed(call.destination))
        elif answer.status < 500 and refused.remote_errcode != UNKNOWN:
            await self._noted(self._destinations.succeeded(call.destination))
        if answer.status < 400:
            return RemoteUnavailable(f"The server {call.destination} answers nonsense")
        return refused

    @staticmethod
    async def _noted(outcome: Coroutine[Any, Any, None]) -> None:
        """Notes how it went; an answer is not lost because that cannot be written down."""
        try:
            await outcome
        except DatabaseError as error:
            logger.warning("The outcome of a request to another server could not be noted: %s", error)


def _encoded(body: Mapping[str, Any] | bytes) -> bytes:
    return body if isinstance(body, bytes) else encode_canonical(body)
