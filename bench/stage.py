"""A server that is compared with another, how much it has to do, and what that costs."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiohttp
import asyncpg

from bench.client import PASSWORD, Client
from bench.followers import Room, Sent
from bench.server import Cpu, Meter, Server

FILL_AT_ONCE: Final = 4
"""Users who are made, and rooms that are joined, at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done; what each is about is its help on the command line."""

    rooms: int = field(default=40, metadata={"help": "create_room: rooms"})
    send_rooms: int = field(default=5, metadata={"help": "send: rooms"})
    send_members: int = field(default=20, metadata={"help": "send: members of each room"})
    messages: int = field(default=400, metadata={"help": "send: messages"})
    readers: int = field(default=60, metadata={"help": "sync_*: users who wait, each in two rooms"})
    reader_rooms: int = field(default=6, metadata={"help": "sync_*: rooms"})
    fanout_messages: int = field(default=40, metadata={"help": "sync_fanout: messages"})
    fanout_per_second: float = field(default=2.0, metadata={"help": "sync_fanout: messages in a second"})
    burst_messages: int = field(default=60, metadata={"help": "sync_burst: messages"})
    initial_rooms: int = field(default=100, metadata={"help": "initial_sync: rooms of the user"})
    initial_syncs: int = field(default=5, metadata={"help": "initial_sync: new devices"})
    big_members: int = field(default=400, metadata={"help": "big_*: users who join the room"})
    big_messages: int = field(default=30, metadata={"help": "big_send: messages"})
    big_reads: int = field(default=20, metadata={"help": "big_members, big_state: requests"})
    big_readers: int = field(default=100, metadata={"help": "big_fanout: users who wait"})
    big_fanout_messages: int = field(default=8, metadata={"help": "big_fanout: messages"})
    big_fanout_per_second: float = field(default=0.5, metadata={"help": "big_fanout: messages in a second"})
    passes: int = field(default=3, metadata={"help": "paginate: times through the rooms of send"})


TINY: Final = Sizes(
    rooms=4,
    send_rooms=2,
    send_members=3,
    messages=12,
    readers=4,
    reader_rooms=3,
    fanout_messages=4,
    fanout_per_second=20.0,
    burst_messages=6,
    initial_rooms=4,
    initial_syncs=2,
    big_members=8,
    big_messages=4,
    big_reads=2,
    big_readers=4,
    big_fanout_messages=3,
    big_fanout_per_second=20.0,
    passes=1,
)
"""Enough to see whether all answers are right; the figures say nothing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work took: processor time, seconds, and the growth of the write-ahead log and the database in bytes."""

    cpu: Cpu
    seconds: float
    wal_bytes: int
    database_bytes: int


@dataclass(slots=True)
class Stage:
    """A server that workloads are done on, and what earlier workloads have left there for later ones.

    Attributes:
        server: the server.
        meter: measures it.
        http: connections to it.
        database: a connection to its PostgreSQL.
        database_name: its database there.
        sizes: how much is done.
        cost: what the last workload took.
    """

    server: Server
    meter: Meter
    http: aiohttp.ClientSession
    database: "asyncpg.Connection[asyncpg.Record]"
    database_name: str
    sizes: Sizes
    cost: Cost | None = None
    send_rooms: list[Room] = field(default_factory=list)
    sent: Sequence[Sent] = ()
    reader_rooms: list[Room] = field(default_factory=list)
    initial_rooms: list[Room] = field(default_factory=list)
    big_room: Room | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """What happens in the block, and what it sets off, is the cost."""
        wal, size_bytes = await self._stored()
        async with self.meter.measure() as costs:
            started = time.perf_counter()
            yield
            seconds = time.perf_counter() - started
        wal_after, size_after_bytes = await self._stored()
        self.cost = Cost(costs[0], seconds, wal_after - wal, size_after_bytes - size_bytes)

    async def _stored(self) -> tuple[int, int]:
        row = await self.database.fetchrow(
            "SELECT (pg_current_wal_lsn() - '0/0')::bigint, pg_database_size($1::name)", self.database_name
        )
        assert row is not None
        return int(row[0]), int(row[1])

    async def users(self, count: int) -> list[Client]:
        """New users."""

        async def register() -> Client:
            client = Client(self.http, self.server.url)
            await client.register(next(self._numbers))
            return client

        return await in_parallel([register] * count, FILL_AT_ONCE)

    async def device(self, user: Client) -> Client:
        """A new device of a user."""
        client = Client(self.http, self.server.url)
        await client.log_in(user.user_id[1:].partition(":")[0], PASSWORD)
        return client


async def in_parallel(works: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """Does some works, so many at once; what they return, in their order."""
    results: dict[int, T] = {}
    queue = iter(enumerate(works))

    async def work_off() -> None:
        for index, work in queue:
            results[index] = await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work_off())
    return [results[index] for index in range(len(works))]
