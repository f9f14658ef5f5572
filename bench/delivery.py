"""What it costs to deliver an event to those who wait for it: by long polls over HTTP, and pushed over the WebSocket.

Many users are in a room and wait; one sends. The cost of one delivery is what all of it costs, without what the send
costs if nobody waits, divided by those who were told.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.client import LAZY, PASSWORD, Client, event_ids, http_session
from bench.filling import filling
from bench.server import Cpu, Meter, Place, Server, place, running_server
from homeserver.core.ids import RoomId

DELIVERY_SECONDS_MAX: Final = 60
_LONG_POLL_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Options:
    """How many wait, and how many events are sent."""

    readers: int = 20
    events: int = 50


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one delivered event costs, in milliseconds of processor time."""

    transport: str
    server_ms: float
    database_ms: float

    def line(self) -> str:
        """For people."""
        total_ms = self.server_ms + self.database_ms
        return (
            f"{self.transport:<12} server {self.server_ms:>7.3f} ms   database {self.database_ms:>7.3f} ms   "
            f"total {total_ms:>7.3f} ms for each delivered event"
        )


async def _measure_all(where: Place, room_id: RoomId, options: Options) -> list[Delivery]:
    async with running_server(where) as server, http_session() as http:
        meter = Meter(server)
        writer = Client(http, server.url)
        readers = [Client(http, server.url) for _ in range(options.readers)]
        await writer.log_in("writer", PASSWORD)
        for number, reader in enumerate(readers):
            await reader.log_in(f"reader{number}", PASSWORD)
        await meter.calibrate()
        await writer.send(room_id)
        async with meter.measure() as alone:
            for _ in range(options.events):
                await writer.send(room_id)
        return [
            await _measure(server, transport, follow, alone[0], writer, readers, room_id, options)
            for transport, follow in (("long poll", _poll), ("WebSocket", _listen))
        ]


_Follow = Callable[[Client, AsyncExitStack], Awaitable[AsyncIterator[Any]]]


async def _measure(
    server: Server,
    transport: str,
    follow: _Follow,
    alone: Cpu,
    writer: Client,
    readers: Sequence[Client],
    room_id: RoomId,
    options: Options,
) -> Delivery:
    """Sends one event after the other, each when everybody has got the one before."""
    meter = Meter(server)
    async with AsyncExitStack() as stack:
        for reader in readers:
            await reader.sync(filter=LAZY)
        arrivals = [_Arrivals(await follow(reader, stack)) for reader in readers]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = [group.create_task(each.run()) for each in arrivals]
        await meter.calibrate()
        async with meter.measure() as used, asyncio.timeout(DELIVERY_SECONDS_MAX * options.events):
            for _ in range(options.events):
                event_id = await writer.send(room_id)
                for each in arrivals:
                    await each.wait_for(event_id)
        for task in running:
            task.cancel()
    cost = (used[0] - alone) * (1000 / options.events / len(readers))
    return Delivery(transport, cost.server, cost.database)


class _Arrivals:
    """What has come to one reader."""

    def __init__(self, syncs: AsyncIterator[Any]) -> None:
        self._syncs = syncs
        self._seen: set[str] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        async for sync in self._syncs:
            self._seen |= event_ids(sync)
            self._news.set()

    async def wait_for(self, event_id: str) -> None:
        while event_id not in self._seen:
            await self._news.wait()
            self._news.clear()


async def _poll(client: Client, _: AsyncExitStack) -> AsyncIterator[Any]:
    async def syncs() -> AsyncIterator[Any]:
        while True:
            yield await client.sync_answer(timeout_ms=_LONG_POLL_MS, filter=LAZY)

    return syncs()


async def _listen(client: Client, stack: AsyncExitStack) -> AsyncIterator[Any]:
    return await stack.enter_async_context(client.pushed_syncs(filter=LAZY))


async def _fill(where: Place, options: Options) -> RoomId:
    async with filling(where) as make:
        readers = [f"reader{number}" for number in range(options.readers)]
        for username in ("writer", *readers):
            await make.make_user(username)
        return await make.make_room("writer", readers)


def run(options: Options, *, as_json: bool) -> None:
    """Measures and prints."""
    with place() as where:
        room_id = asyncio.run(_fill(where, options))
        deliveries = asyncio.run(_measure_all(where, room_id, options))
    print(
        json.dumps([asdict(one) for one in deliveries], indent=2)
        if as_json
        else "\n".join(d.line() for d in deliveries)
    )
