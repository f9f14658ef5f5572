"""Carries every endpoint for clients over a WebSocket, and pushes syncs; the code behind it is that of HTTP.

The protocol, with its close codes, is described in `docs/websocket.md`. Like `http.py` this stands on ASGI itself:
Quart takes in a socket's messages without bound, here they stay in the connection until the socket has room for them.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

import structlog

from homeserver.core.clock import Clock
from homeserver.core.errors import LimitExceeded, MatrixError, UnavailableForNow
from homeserver.core.ids import UserId
from homeserver.web.access_token import access_token_of
from homeserver.web.answer import Answer, encode_error
from homeserver.web.body import Receive
from homeserver.web.client_address import TrustedProxies
from homeserver.web.cors import CORS_HEADERS_RAW
from homeserver.web.dispatch import Dispatcher, Operation
from homeserver.web.endpoint import Access, Request, Response, Section
from homeserver.web.http_request import Scope, headers_of, peer_of
from homeserver.web.http_response import Send
from homeserver.web.observation import SOCKETS
from homeserver.web.routing import parse_query
from homeserver.web.websocket_calls import CallResolver
from homeserver.web.websocket_socket import CloseCode, Socket, SocketClosed, WebSocketSettings

WEBSOCKET_PATH: Final = "/_matrix/client/unstable/org.heliograph.ws"
WEBSOCKET_SECTION: Final = Section("WebSocket")

_log = structlog.get_logger()


@WEBSOCKET_SECTION.endpoint("GET", WEBSOCKET_PATH, access=Access.GUEST)
async def open_websocket(request: Request) -> Response:
    """Opens a WebSocket that carries all other endpoints; a request without an upgrade is told to ask for one."""
    raise MatrixError("This endpoint is for WebSockets", status=426)


class WebSocketTransport:
    """All WebSockets of a server process."""

    path = WEBSOCKET_PATH

    def __init__(
        self,
        *,
        operations: Sequence[Operation],
        dispatcher: Dispatcher,
        clock: Clock,
        trusted_proxies: Sequence[str] = (),
        settings: WebSocketSettings | None = None,
    ) -> None:
        """Takes its means.

        Args:
            operations: what can be called by frames; those for other servers are left out.
            dispatcher: calls them.
            clock: for the watch over sessions and signs of life.
            trusted_proxies: networks (CIDR) whose `X-Forwarded-For` is believed.
            settings: limits other than the usual.
        """
        self._resolver = CallResolver(operations)
        self._dispatcher = dispatcher
        self._clock = clock
        self._proxies = TrustedProxies(trusted_proxies)
        self._settings = settings or WebSocketSettings()
        self._stopping = asyncio.Event()
        self._open = 0
        self._open_of: Counter[UserId] = Counter()
        self._names = count(1)

    def stop(self) -> None:
        """Ends all sockets soon, with `CloseCode.GOING_AWAY`, and lets no new one in."""
        self._stopping.set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one socket from the handshake to its end."""
        if (await receive())["type"] != "websocket.connect":
            return
        counted: list[UserId] = []

        def admit_user(user_id: UserId) -> None:
            if self._open_of[user_id] >= self._settings.sockets_per_user_max:
                raise LimitExceeded("This user has too many WebSockets", retry_after_ms=10_000)
            self._open_of[user_id] += 1
            counted.append(user_id)

        self._open += 1
        SOCKETS.inc()
        try:
            try:
                base = await self._shake_hands(scope, admit_user)
            except Exception as error:  # noqa: BLE001 - as for every request: each error has an answer
                await _refuse(encode_error(error), scope, send)
                return
            await send({"type": "websocket.accept", "headers": list(CORS_HEADERS_RAW)})
            await self._run(base, receive, send, admit_user)
        finally:
            self._open -= 1
            SOCKETS.dec()
            for user_id in counted:
                self._open_of[user_id] -= 1
                if not self._open_of[user_id]:
                    del self._open_of[user_id]

    async def _shake_hands(self, scope: Scope, admit_user: Callable[[UserId], None]) -> Request:
        """What all requests of the socket have in common.

        Raises:
            UnavailableForNow: there are too many sockets, or the server is stopping.
            LimitExceeded: the user has too many.
            MatrixError: the access token that was shown is not good.
        """
        if self._open > self._settings.sockets_max or self._stopping.is_set():
            raise UnavailableForNow("The server takes no more WebSockets at this moment")
        headers = headers_of(scope)
        query = parse_query(scope["query_string"].decode("latin-1"))
        access_token = access_token_of(headers=headers, query=query)
        query.pop("access_token", None)
        base = Request(
            operation=open_websocket.__name__,
            query=query,
            access_token=access_token,
            ip=self._proxies.client_address(peer=peer_of(scope), forwarded_for=headers.get("x-forwarded-for")),
            user_agent=headers.get("user-agent", ""),
        )
        if access_token is not None:
            base = await self._dispatcher.authenticate(WEBSOCKET_SECTION.endpoints[0], base)
            admit_user(base.requester.user_id)
        return base

    async def _run(self, base: Request, receive: Receive, send: Send, admit_user: Callable[[UserId], None]) -> None:
        opened = self._clock.monotonic()
        name = f"ws{next(self._names):x}"
        socket = Socket(
            base,
            name=name,
            endpoint=WEBSOCKET_SECTION.endpoints[0],
            dispatcher=self._dispatcher,
            resolver=self._resolver,
            clock=self._clock,
            settings=self._settings,
            send=send,
            admit_user=admit_user,
            stopping=self._stopping,
        )
        end: SocketClosed = await socket.run(receive)
        if end.code not in (None, CloseCode.NOT_READING):
            try:
                async with asyncio.timeout(self._settings.send_seconds):
                    await send({"type": "websocket.close", "code": end.code, "reason": end.reason})
            except TimeoutError:
                pass  # a client that does not read cannot be told
        _log.info(
            "websocket ended",
            socket=name,
            requester=socket.user_id,
            code=None if end.code is None else end.code.name,
            seconds=round(self._clock.monotonic() - opened, 1),
        )


async def _refuse(answer: Answer, scope: Scope, send: Send) -> None:
    """Answers a handshake with an error, in HTTP where the server below can."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": int(CloseCode.SESSION_ENDED)})
        return
    headers = [*CORS_HEADERS_RAW, (b"content-type", answer.content_type.encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})
