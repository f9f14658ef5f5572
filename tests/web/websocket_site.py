"""A server with the example endpoints and WebSockets, and a client that speaks frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from homeserver.web.endpoint import RateLimit, Request, Response, Section
from homeserver.web.rate_limits import Rate
from homeserver.web.websocket import WEBSOCKET_PATH
from homeserver.web.websocket_socket import WebSocketSettings
from tests.web.example_sections import Witness, access_section, echo_section, failing_section, slow_section
from tests.web.harness import Accounts, ManualClock, Web, served, web

SEND_PATH = {"room_id": "!a/b:c", "event_type": "m.room.message", "txn_id": "t1"}


class Client:
    """A client at its socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = 0

    async def tell(self, frame: Any) -> None:
        """Sends a frame: text, bytes, or a value as JSON."""
        await self.connection.send(frame if isinstance(frame, str | bytes) else orjson.dumps(frame).decode())

    async def hear(self) -> Any:
        """Receives a frame."""
        async with asyncio.timeout(10):
            return orjson.loads(await self.connection.recv())

    async def ask(self, operation: str, **members: Any) -> Any:
        """Sends a request and receives its answer, which must be the next frame."""
        self._ids += 1
        await self.tell({"id": self._ids, "operation": operation, **members})
        answer = await self.hear()
        assert answer.pop("id") == self._ids
        return answer

    async def closed(self) -> int:
        """Waits until the server closes, and says with which code."""
        async with asyncio.timeout(10):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006


@dataclass
class Syncs:
    """A `sync` whose answers a test decides."""

    answers: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def section(self) -> Section:
        """The endpoint."""
        s = Section("Sync")

        @s.endpoint("GET", "/_matrix/client/v3/sync")
        async def sync(request: Request) -> Response:
            """Answers as the test says."""
            self.asked.append({name: list(values) for name, values in request.query.items()})
            try:
                answer = await self.answers.get()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Response) else Response({"next_batch": answer})

        return s


@dataclass
class Site:
    """Everything a test needs."""

    web: Web
    url: str
    clock: ManualClock
    witness: Witness
    syncs: Syncs

    @property
    def accounts(self) -> Accounts:
        """Who has which token."""
        return self.web.accounts

    @asynccontextmanager
    async def client(
        self, token: str | None = "alice", *, query: str = "", compression: str | None = "deflate"
    ) -> AsyncIterator[Client]:
        """Opens a socket."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with connect(self.url + query, additional_headers=headers, compression=compression) as connection:
            yield Client(connection)


@asynccontextmanager
async def opened(settings: WebSocketSettings | None = None) -> AsyncIterator[Site]:
    """All example endpoints behind a server."""
    witness, syncs, clock = Witness(), Syncs(), ManualClock()
    sections = (
        echo_section(witness),
        access_section(witness),
        failing_section(),
        slow_section(witness),
        syncs.section(),
    )
    rates = {RateLimit.MESSAGE: Rate(per_second=1, burst=2)}
    async with web(*sections, clock=clock, rates=rates, websocket=settings) as site, served(site.app) as port:
        yield Site(site, f"ws://127.0.0.1:{port}{WEBSOCKET_PATH}", clock, witness, syncs)
        witness.go_on.set()


async def eventually(condition: Any) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
