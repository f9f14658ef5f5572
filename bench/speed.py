"""How fast people register, write, and read what others wrote.

The numbers are for comparing one commit with another on one machine.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bench.client import Client, http_session
from bench.server import Server, place, running_server


@dataclass(frozen=True, slots=True)
class Options:
    """How large the measurement is.

    Attributes:
        users: how many users there are, all in one room.
        messages: how many messages they send together.
        senders: how many of them send at the same time.
    """

    users: int = 50
    messages: int = 1000
    senders: int = 10


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast something went, and what it cost the server and its database, in milliseconds for one operation."""

    name: str
    per_second: float
    p50_ms: float
    p99_ms: float
    server_ms: float
    database_ms: float

    def line(self) -> str:
        """For people."""
        return (
            f"{self.name:<20} {self.per_second:>9.1f}/s   p50 {self.p50_ms:>8.1f} ms   p99 {self.p99_ms:>8.1f} ms   "
            f"CPU {self.server_ms:>6.2f} + {self.database_ms:.2f} ms"
        )


async def measure(name: str, works: Iterable[Callable[[], Awaitable[Any]]], *, at_once: int, server: Server) -> Speed:
    """Does some work, so much of it at once."""
    queue = iter(works)
    took: list[float] = []

    async def work_off() -> None:
        for work in queue:
            started = time.perf_counter()
            await work()
            took.append(time.perf_counter() - started)

    cpu, started = server.cpu_seconds(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work_off())
    seconds = time.perf_counter() - started
    took.sort()
    used = (server.cpu_seconds() - cpu) * (1000 / len(took))
    return Speed(
        name=name,
        per_second=len(took) / seconds,
        p50_ms=took[len(took) // 2] * 1000,
        p99_ms=took[int(len(took) * 0.99)] * 1000,
        server_ms=used.server,
        database_ms=used.database,
    )


async def _measure_all(server: Server, options: Options) -> list[Speed]:
    async with http_session() as http:
        users = [Client(http, server.url) for _ in range(options.users)]

        def register(number: int) -> Callable[[], Awaitable[None]]:
            return lambda: users[number].register(number)

        speeds = [await measure("register", (register(n) for n in range(len(users))), at_once=4, server=server)]
        room_id = await users[0].create_room()

        def join(user: Client) -> Callable[[], Awaitable[None]]:
            return lambda: user.join(room_id)

        def send(number: int) -> Callable[[], Awaitable[str]]:
            return lambda: users[number % len(users)].send(room_id)

        speeds.append(await measure("join", (join(user) for user in users[1:]), at_once=4, server=server))
        speeds.append(await measure("first sync", (user.sync for user in users), at_once=4, server=server))
        sends = (send(number) for number in range(options.messages))
        speeds.append(await measure("send a message", sends, at_once=options.senders, server=server))
        speeds.append(await measure("incremental sync", (user.sync for user in users), at_once=4, server=server))
        speeds.append(await measure("sync without news", (user.sync for user in users * 5), at_once=4, server=server))
        return speeds


def run(options: Options, *, as_json: bool) -> None:
    """Measures and prints."""

    async def measured() -> list[Speed]:
        async with running_server(where) as server:
            return await _measure_all(server, options)

    with place() as where:
        speeds = asyncio.run(measured())
    print(json.dumps([asdict(one) for one in speeds], indent=2) if as_json else "\n".join(one.line() for one in speeds))
