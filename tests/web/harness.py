"""A small application to test the endpoint machinery with: endpoints of every kind, accounts by value, real servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from hypercorn.config import Config
from quart import Quart

from homeserver.core.clock import Clock
from homeserver.core.errors import Unauthorized, UnknownToken, UserLocked
from homeserver.core.ids import DeviceId, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.runtime.connections import Connections
from homeserver.web.dispatch import Dispatcher, prepare
from homeserver.web.endpoint import Endpoint, RateLimit, Request, Section
from homeserver.web.http import HttpSettings, mount
from homeserver.web.rate_limits import LocalBuckets, Rate, RateLimits
from homeserver.web.websocket import WEBSOCKET_SECTION, WebSocketTransport
from homeserver.web.websocket_socket import WebSocketSettings
from homeserver.web.write_tasks import WriteTasks

ALICE = Requester(UserId("@alice:test"), DeviceId("ALICE"), session_id=1)
BOB = Requester(UserId("@bob:test"), DeviceId("BOB"), session_id=2)
ADMIN = Requester(UserId("@admin:test"), DeviceId("ADMIN"), session_id=3, is_admin=True)
GUEST = Requester(UserId("@guest:test"), DeviceId("GUEST"), session_id=4, is_guest=True)
SUSPENDED = Requester(UserId("@suspended:test"), DeviceId("SUSPENDED"), session_id=5, is_suspended=True)
BRIDGE = Requester(UserId("@bridge:test"), appservice_id="bridge")
LOCKED = Requester(UserId("@locked:test"), DeviceId("LOCKED"), session_id=6)


class ManualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since some day."""
        return int(self._now * 1000)

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock has been moved so far."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + seconds, waiting))
        await waiting

    def advance(self, seconds: float) -> None:
        """Moves the clock, and wakes who has slept long enough."""
        self._now += seconds
        for due, waiting in list(self._sleepers):
            if due <= self._now:
                self._sleepers.remove((due, waiting))
                if not waiting.done():
                    waiting.set_result(None)

    @property
    def sleepers(self) -> int:
        """How many wait for the clock now."""
        return sum(not waiting.done() for _, waiting in self._sleepers)


@dataclass
class Accounts:
    """Who has which token; the token of each is the local part of the user id."""

    sessions: dict[str, Requester] = field(
        default_factory=lambda: {
            user.user_id.localpart: user for user in (ALICE, BOB, ADMIN, GUEST, SUSPENDED, BRIDGE, LOCKED)
        }
    )
    asked: int = 0

    async def authenticate_client(self, endpoint: Endpoint, request: Request) -> Request:
        """As `client_api` would."""
        self.asked += 1
        requester = self.sessions.get(request.access_token or "")
        if requester is None:
            raise UnknownToken
        if requester is LOCKED and not endpoint.locked_allowed:
            raise UserLocked
        return replace(request, caller=requester)

    async def authenticate_server(self, endpoint: Endpoint, request: Request) -> Request:
        """As `federation` would, but for signatures: `X-Matrix origin=name` is believed."""
        scheme, _, origin = request.headers.get("authorization", "").partition(" origin=")
        if scheme != "X-Matrix":
            raise Unauthorized("Not signed")
        return replace(request, origin=ServerName(origin))


@dataclass
class Web:
    """An application under test and what it stands on."""

    app: Quart
    accounts: Accounts
    writes: WriteTasks
    sockets: WebSocketTransport

    async def call(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Any = b"",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        peer: str = "192.0.2.1",
    ) -> "Reply":
        """Sends a request through ASGI, as a server would: with the path as it stands in the request line."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        raw_path, _, query = target.partition("?")
        sent = {"host": "test", **(headers or {})}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        if content and not {"content-length", "transfer-encoding"} & {name.lower() for name in sent}:
            sent["content-length"] = str(len(content))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": raw_path,
            "raw_path": raw_path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": (peer, 1234),
            "scheme": "http",
            "extensions": {},
        }
        return await asgi_call(self.app, scope, content)


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


async def asgi_call(app: Quart, scope: dict[str, Any], content: bytes) -> Reply:
    """Runs one request through an ASGI application; the client stays until the answer is complete."""
    messages = [{"type": "http.request", "body": content, "more_body": False}]
    start: dict[str, Any] = {}
    body = bytearray()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)  # type: ignore[arg-type]
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], headers, bytes(body))


@asynccontextmanager
async def web(
    *sections: Section,
    clock: Clock | None = None,
    rates: Mapping[RateLimit, Rate] | None = None,
    http: HttpSettings | None = None,
    websocket: WebSocketSettings | None = None,
) -> AsyncIterator[Web]:
    """An application with these sections, and the WebSocket."""
    accounts = Accounts()
    clock = clock or ManualClock()
    async with WriteTasks(shutdown_seconds=5) as writes:
        dispatcher = Dispatcher(
            authenticate_client=accounts.authenticate_client,
            authenticate_server=accounts.authenticate_server,
            rate_limits=RateLimits(store=LocalBuckets(clock), rates=rates or {}),
            writes=writes,
            clock=clock,
        )
        operations = prepare([*sections, WEBSOCKET_SECTION])
        sockets = WebSocketTransport(operations=operations, dispatcher=dispatcher, clock=clock, settings=websocket)
        app = Quart("test", static_folder=None)
        mount(
            app,
            operations=operations,
            dispatcher=dispatcher,
            clock=clock,
            settings=http or HttpSettings(),
            websocket=sockets,
        )
        yield Web(app, accounts, writes, sockets)


@asynccontextmanager
async def served(app: Quart) -> AsyncIterator[int]:
    """Serves an application, as the server does, on a random port of this machine."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port: int = listening.getsockname()[1]
    config = Config()
    config.accesslog = None
    config.errorlog = None
    connections = Connections(app, config, [listening])
    await connections.start()
    try:
        yield port
    finally:
        await connections.end(2)


async def raw_exchange(port: int, *parts: bytes, until_closed: bool = True) -> bytes:
    """Writes bytes to a server as they are and reads what comes back, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if until_closed:
            return await reader.read(-1)
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
