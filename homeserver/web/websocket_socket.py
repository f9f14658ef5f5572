"""One WebSocket from its opening to its end: takes frames, answers each in a task of its own, pushes syncs.

The protocol, with its close codes, is described in `docs/websocket.md`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NoReturn

import structlog
from structlog.contextvars import bind_contextvars

from homeserver.core.clock import Clock
from homeserver.core.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    MatrixError,
    TooLarge,
    UnavailableForNow,
    Unrecognized,
)
from homeserver.core.ids import UserId
from homeserver.web.answer import Answer, encode_error, encode_json
from homeserver.web.body import GivenBody, Receive
from homeserver.web.dispatch import Dispatcher, Operation
from homeserver.web.endpoint import Endpoint, Request
from homeserver.web.http_response import Send
from homeserver.web.waiting import unless_ended
from homeserver.web.websocket_calls import CallResolver
from homeserver.web.websocket_frames import (
    AckFrame,
    AuthenticateFrame,
    CallFrame,
    Frame,
    FrameId,
    MalformedFrame,
    PingFrame,
    PongFrame,
    Query,
    SubscribeFrame,
    UnsubscribeFrame,
    answer_frame,
    error_frame,
    parse_frame,
    sync_frame,
)
from homeserver.web.websocket_sync import SyncSubscription

_log = structlog.get_logger()


class CloseCode(IntEnum):
    """Why the server ends a socket."""

    GOING_AWAY = 1001
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    MALFORMED_FRAMES = 4400
    SESSION_ENDED = 4401
    NO_SIGN_OF_LIFE = 4408
    NOT_READING = 4429


class SocketClosed(Exception):
    """The socket is at its end; without a code if the client has ended it."""

    def __init__(self, code: CloseCode | None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """The limits of WebSockets.

    Attributes:
        frame_bytes_max: the largest frame that a client may send. The server below must allow as much.
        answer_bytes_max: the largest answer that is no JSON (media) that is put into a frame.
        requests_max: how many requests of a socket run at once; no further frame is read until one is done.
        subscriptions_max: how many subscriptions a socket may have.
        malformed_max: after so many malformed frames in a row the socket is ended.
        authenticate_seconds: the time to show an access token.
        idle_seconds: after so long without a frame the socket is ended; the client is pinged half-way.
        check_seconds: how often the session and the times above are looked at.
        send_seconds: the time that a client may take to read a frame.
        sockets_max: how many sockets a process has open.
        sockets_per_user_max: how many of these may belong to one user.
    """

    frame_bytes_max: int = 1024 * 1024
    answer_bytes_max: int = 16 * 1024 * 1024
    requests_max: int = 16
    subscriptions_max: int = 4
    malformed_max: int = 10
    authenticate_seconds: float = 60.0
    idle_seconds: float = 120.0
    check_seconds: float = 15.0
    send_seconds: float = 30.0
    sockets_max: int = 10_000
    sockets_per_user_max: int = 50


class Socket:
    """A WebSocket that has been accepted."""

    def __init__(
        self,
        base: Request,
        *,
        name: str,
        endpoint: Endpoint,
        dispatcher: Dispatcher,
        resolver: CallResolver,
        clock: Clock,
        settings: WebSocketSettings,
        send: Send,
        admit_user: Callable[[UserId], None],
        stopping: asyncio.Event,
    ) -> None:
        """Takes its means.

        Args:
            base: what all its requests have in common; with token and caller if the handshake brought a token.
            name: begins the request ids in the log.
            endpoint: the socket's own, whose access the session must have.
            dispatcher: calls endpoints.
            resolver: finds them.
            clock: for the watch over the session and signs of life.
            settings: the limits.
            send: ASGI's.
            admit_user: counts the socket for a user who authenticates later; raises LimitExceeded.
            stopping: is set when the server stops.
        """
        self._base = base
        self._name = name
        self._endpoint = endpoint
        self._dispatcher = dispatcher
        self._resolver = resolver
        self._clock = clock
        self._settings = settings
        self._send = send
        self._admit_user = admit_user
        self._stopping = stopping
        self._opened = self._heard = clock.monotonic()
        self._calls = 0
        self._malformed = 0
        self._busy: set[FrameId] = set()
        self._subscriptions: dict[FrameId, SyncSubscription] = {}
        self._slots = asyncio.Semaphore(settings.requests_max)
        self._tasks = asyncio.TaskGroup()

    @property
    def user_id(self) -> UserId | None:
        """Whose session it is."""
        return None if self._base.caller is None else self._base.caller.user_id

    async def run(self, receive: Receive) -> SocketClosed:
        """Serves the socket until it ends, and says how it ended; nothing of it runs any longer then."""
        ends: list[SocketClosed] = []
        try:
            async with self._tasks:
                self._tasks.create_task(self._watch())
                await self._take_frames(receive)
        except* SocketClosed as closed:
            ends.extend(error for error in closed.exceptions if isinstance(error, SocketClosed))
        except* Exception as failed:  # noqa: BLE001 - the owner of the tasks: one socket's failure is nobody else's
            _log.error("a websocket failed", exc_info=failed)
        return ends[0] if ends else SocketClosed(CloseCode.INTERNAL_ERROR, "Internal server error")

    async def _take_frames(self, receive: Receive) -> NoReturn:
        """Reads frames one by one; what takes long is given to tasks."""
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                raise SocketClosed(None)
            self._heard = self._clock.monotonic()
            try:
                await self._take(parse_frame(self._text_of(message)))
            except MalformedFrame as malformed:
                await self._complain(malformed)

    def _text_of(self, message: Mapping[str, Any]) -> bytes:
        text: str | None = message.get("text")
        if text is None:
            raise MalformedFrame(BadJson("Binary frames are not understood"))
        encoded = text.encode()
        if len(encoded) > self._settings.frame_bytes_max:
            raise SocketClosed(CloseCode.MESSAGE_TOO_BIG, "The frame is too large")
        return encoded

    async def _take(self, frame: Frame) -> None:
        match frame:
            case CallFrame():
                await self._start_call(frame)
            case AckFrame():
                self._acknowledge(frame)
            case AuthenticateFrame():
                await self._answer(frame.id, await self._authenticate(frame))
            case SubscribeFrame():
                await self._subscribe(frame)
            case UnsubscribeFrame():
                await self._unsubscribe(frame)
            case PingFrame():
                await self._transmit(encode_json({"pong": frame.ping}).decode())
            case PongFrame():
                pass
        self._malformed = 0

    async def _complain(self, malformed: MalformedFrame) -> None:
        """Tells the client of a frame that makes no sense; ends the socket of one that sends nothing else."""
        await self._transmit(error_frame(malformed.id, malformed.error))
        self._malformed += 1
        if self._malformed >= self._settings.malformed_max:
            raise SocketClosed(CloseCode.MALFORMED_FRAMES, "Too many malformed frames")

    async def _start_call(self, frame: CallFrame) -> None:
        """Gives a request to a task of its own, as soon as fewer than the limit are running."""
        self._refuse_taken_id(frame.id)
        await self._slots.acquire()
        self._busy.add(frame.id)
        self._tasks.create_task(self._call(frame))

    async def _call(self, frame: CallFrame) -> None:
        operation: Operation | None = None
        try:
            try:
                operation, request = self._resolver.resolve(frame, self._base)
            except MatrixError as error:
                answer = encode_error(error)
            else:
                answer = await self._dispatch(operation, request, frame.body)
            self._busy.discard(frame.id)  # before the answer is out: then the client may use the id again at once
            await self._answer(frame.id, answer)
        finally:
            self._slots.release()
        if self._base.caller is not None:
            logs_out = operation is not None and operation.endpoint.locked_allowed
            if logs_out or answer.errcode in ("M_UNKNOWN_TOKEN", "M_USER_LOCKED"):
                await self._check_session()

    async def _dispatch(self, operation: Operation, request: Request, body: bytes) -> Answer:
        self._calls += 1
        bind_contextvars(request_id=f"{self._name}.{self._calls}")
        return await self._dispatcher.dispatch(operation, request, GivenBody(body), transport="websocket")

    async def _authenticate(self, frame: AuthenticateFrame) -> Answer:
        """Gives the socket a session, or another token of the same user (after a refresh)."""
        try:
            request = await self._dispatcher.authenticate(
                self._endpoint, replace(self._base, access_token=frame.access_token, caller=None)
            )
            user_id = request.requester.user_id
            if self.user_id is None:
                self._admit_user(user_id)
            elif self.user_id != user_id:
                raise Forbidden("This socket belongs to another user")
        except Exception as error:  # noqa: BLE001 - as for every request: each error has an answer
            return encode_error(error)
        self._base = request
        device_id = request.requester.device_id
        body = {"user_id": user_id} if device_id is None else {"user_id": user_id, "device_id": device_id}
        return Answer(200, encode_json(body), value=body)

    async def _subscribe(self, frame: SubscribeFrame) -> None:
        self._refuse_taken_id(frame.id)
        if len(self._subscriptions) >= self._settings.subscriptions_max:
            error = LimitExceeded("This socket has too many subscriptions", retry_after_ms=1000)
            await self._answer(frame.id, encode_error(error))
            return

        async def call_sync(query: Query) -> Answer:
            try:
                operation, request = self._resolver.resolve_sync(query, self._base)
            except Unrecognized as error:
                return encode_error(error)
            return await self._dispatch(operation, request, b"")

        async def push(sync: bytes) -> None:
            await self._check_session()
            await self._transmit(sync_frame(frame.id, sync))

        subscription = SyncSubscription(frame, call_sync=call_sync, push=push, clock=self._clock)
        self._subscriptions[frame.id] = subscription
        self._tasks.create_task(self._push_syncs(frame.id, subscription))

    async def _push_syncs(self, frame_id: FrameId, subscription: SyncSubscription) -> None:
        answer = await subscription.run()
        del self._subscriptions[frame_id]
        await self._answer(frame_id, answer)
        if self._base.caller is not None and answer.status == 401:
            await self._check_session()

    async def _unsubscribe(self, frame: UnsubscribeFrame) -> None:
        """Ends a subscription, which then gives its last answer itself."""
        subscription = self._subscriptions.get(frame.id)
        if subscription is None:
            raise MalformedFrame(InvalidParam("There is no subscription with this id"), frame.id)
        subscription.end()

    def _acknowledge(self, frame: AckFrame) -> None:
        known = False
        for frame_id, subscription in self._subscriptions.items():
            if frame.id is None or frame.id == frame_id:
                known = subscription.acknowledge(frame.next_batch) or known
        if not known:
            raise MalformedFrame(InvalidParam("No such sync was waiting to be acknowledged"), frame.id)

    def _refuse_taken_id(self, frame_id: FrameId) -> None:
        if frame_id in self._busy or frame_id in self._subscriptions:
            raise MalformedFrame(InvalidParam("A request with this id is still running"), frame_id)

    async def _answer(self, frame_id: FrameId, answer: Answer) -> None:
        if isinstance(answer.body, bytes):
            await self._transmit(answer_frame(frame_id, answer, answer.body))
            return
        content = bytearray()
        async for part in answer.body:
            content += part
            if len(content) > self._settings.answer_bytes_max:
                answer = encode_error(TooLarge("The answer is too large for a frame; use HTTP"))
                content = bytearray(encode_json(answer.value))
                break
        await self._transmit(answer_frame(frame_id, answer, bytes(content)))

    async def _transmit(self, frame: str) -> None:
        try:
            async with asyncio.timeout(self._settings.send_seconds):
                await self._send({"type": "websocket.send", "bytes": None, "text": frame})
        except TimeoutError:
            raise SocketClosed(CloseCode.NOT_READING, "The client does not read") from None

    async def _watch(self) -> NoReturn:
        """Ends the socket when the server stops, the session has ended, or the client gives no sign of life."""
        while True:
            await unless_ended(self._clock.sleep(self._settings.check_seconds), self._stopping.wait)
            if self._stopping.is_set():
                raise SocketClosed(CloseCode.GOING_AWAY, "The server is stopping")
            now = self._clock.monotonic()
            silent_seconds = 0.0 if self._busy else now - self._heard
            if silent_seconds > self._settings.idle_seconds:
                raise SocketClosed(CloseCode.NO_SIGN_OF_LIFE, "No sign of life")
            if self._base.access_token is None and now - self._opened > self._settings.authenticate_seconds:
                raise SocketClosed(CloseCode.NO_SIGN_OF_LIFE, "No access token was shown")
            if silent_seconds > self._settings.idle_seconds / 2:
                await self._transmit(encode_json({"ping": round(silent_seconds)}).decode())
            await self._check_session()

    async def _check_session(self) -> None:
        """Ends the socket if its session has ended, here or on another connection."""
        base = self._base
        if base.access_token is None:
            return
        try:
            checked = await self._dispatcher.authenticate(self._endpoint, replace(base, caller=None))
        except UnavailableForNow:
            return  # the database is away; the next check comes soon
        except MatrixError as error:
            if self._base is base:  # else the client has shown a newer token meanwhile
                raise SocketClosed(CloseCode.SESSION_ENDED, error.errcode) from None
            return
        if self._base is base:
            self._base = checked
