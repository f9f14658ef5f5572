"""A follower handles every row, one process at a time, from where it stopped; it outlives its consumer's failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from homeserver.services.lease_renewal import LeaseLost
from homeserver.services.stream.follower import Batch, Follower
from homeserver.services.stream.hub import Hub
from storage.bus.memory import MemoryBus
from storage.database import Database
from storage.followers import advance_follower, get_follower_position
from storage.leases import acquire_leases, list_leases
from storage.positions import stream_position
from tests.fast_clock import FastClock
from tests.waiting import wait_until

KEYS = frozenset({"room:"})


@pytest.fixture
async def news(db: Database) -> Database:
    async with db.connection() as conn:
        await conn.execute(
            "CREATE TABLE news (number int, position bigint NOT NULL DEFAULT stream_position());"
            "CREATE TABLE handled (number int)"
        )
    return db


class Copyist:
    """A consumer that copies numbers in the transaction that saves its position."""

    def __init__(self, db: Database, *, rows_max: int = 3) -> None:
        self._db = db
        self._rows_max = rows_max
        self.failures_left = 0
        self.batches = 0
        self.blocked: asyncio.Event | None = None

    async def handle(self, batch: Batch) -> int:
        self.batches += 1
        if self.failures_left:
            self.failures_left -= 1
            raise ZeroDivisionError("this batch fails")
        if self.blocked:
            await self.blocked.wait()
        async with self._db.transaction() as conn:
            rows = await conn.fetch(
                "SELECT number, position FROM news WHERE position >= $1 AND position < $2 ORDER BY position LIMIT $3",
                batch.since,
                batch.upto,
                self._rows_max + 1,
            )
            upto = batch.upto if len(rows) <= self._rows_max else rows[-1]["position"]
            numbers = [row["number"] for row in rows if row["position"] < upto]
            await conn.execute("INSERT INTO handled SELECT unnest($1::int[])", numbers)
            await batch.save(conn, upto)
        return int(upto)


@asynccontextmanager
async def running_hub(db: Database, bus: MemoryBus) -> AsyncIterator[Hub]:
    hub = Hub(db=db, bus=bus, clock=FastClock(), streams=())
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(hub.run())
        yield hub
        run.cancel()


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(follower.run())
        yield
        run.cancel()


def make_follower(
    db: Database, hub: Hub, consumer: Copyist, *, clock: FastClock | None = None, from_beginning: bool = True
) -> Follower:
    return Follower(
        name="copyist",
        keys=KEYS,
        consumer=consumer,
        db=db,
        hub=hub,
        clock=clock or FastClock(),
        from_beginning=from_beginning,
    )


async def write(db: Database, bus: MemoryBus, *numbers: int) -> None:
    for number in numbers:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO news (number) VALUES ($1)", number)
            position = await stream_position(conn)
        await bus.wake({"room:!a:b"}, position)


async def has_handled(db: Database, *expected: int) -> None:
    """Waits until just these have been handled, in this order."""

    async def complete() -> bool:
        async with db.connection() as conn:
            numbers = [row["number"] for row in await conn.fetch("SELECT number FROM handled")]
        assert numbers == list(expected)[: len(numbers)]
        return len(numbers) == len(expected)

    await wait_until(complete)


async def holder(db: Database) -> str | None:
    async with db.connection() as conn:
        return (await list_leases(conn, ["copyist"])).get("copyist")


async def test_every_row_is_handled_in_batches_and_once(news: Database) -> None:
    bus = MemoryBus()
    await write(news, bus, *range(10))
    async with running_hub(news, bus) as hub, running(make_follower(news, hub, Copyist(news))):
        await write(news, bus, *range(10, 20))
        await has_handled(news, *range(20))


async def test_a_new_follower_begins_now_unless_told_otherwise(news: Database) -> None:
    bus = MemoryBus()
    await write(news, bus, 1)

    async def has_begun() -> bool:
        async with news.connection() as conn:
            return bool(await conn.fetchval("SELECT count(*) FROM follower_positions"))

    async with (
        running_hub(news, bus) as hub,
        running(make_follower(news, hub, Copyist(news), from_beginning=False)),
    ):
        await wait_until(has_begun)
        await write(news, bus, 2)
        await has_handled(news, 2)


async def test_it_continues_where_it_stopped_and_gives_the_lease_back(news: Database) -> None:
    bus = MemoryBus()
    async with running_hub(news, bus) as hub:
        async with running(make_follower(news, hub, Copyist(news))):
            await write(news, bus, 1, 2)
            await has_handled(news, 1, 2)
            assert await holder(news) is not None
        assert await holder(news) is None
        await write(news, bus, 3)
        async with running(make_follower(news, hub, Copyist(news))):
            await has_handled(news, 1, 2, 3)


async def test_a_batch_that_fails_is_repeated(news: Database) -> None:
    bus = MemoryBus()
    consumer = Copyist(news)
    consumer.failures_left = 2
    async with running_hub(news, bus) as hub, running(make_follower(news, hub, consumer)):
        await write(news, bus, 1)
        await has_handled(news, 1)
        assert consumer.failures_left == 0


async def test_only_one_process_works_and_another_takes_over(news: Database) -> None:
    bus = MemoryBus()
    first, second = Copyist(news), Copyist(news)
    async with running_hub(news, bus) as hub:
        async with running(make_follower(news, hub, first)):
            await write(news, bus, 1)
            await has_handled(news, 1)
            async with running(make_follower(news, hub, second)):
                await write(news, bus, 2, 3)
                await has_handled(news, 1, 2, 3)
                assert second.batches == 0
                async with news.connection() as conn:
                    await acquire_leases(conn, ["nothing"], holder="x", duration_ms=1)
        assert await holder(news) is None
        async with running(make_follower(news, hub, second)):
            await write(news, bus, 4)
            await has_handled(news, 1, 2, 3, 4)
            assert second.batches > 0


async def test_who_was_robbed_of_the_lease_in_the_middle_of_a_batch_saves_nothing(news: Database) -> None:
    """The old holder is too late to notice; what it writes is refused because the position has moved."""
    bus = MemoryBus()
    slow, fast = Copyist(news), Copyist(news)
    slow.blocked = asyncio.Event()
    await write(news, bus, 1, 2)

    async def is_in_a_batch() -> bool:
        return slow.batches == 1

    async with (
        running_hub(news, bus) as hub,
        # The slow one's clock stands nearly still: it renews nothing and notices nothing.
        running(make_follower(news, hub, slow, clock=FastClock(0.001))),
    ):
        await wait_until(is_in_a_batch)
        async with news.connection() as conn:
            await conn.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
        async with running(make_follower(news, hub, fast)):
            await has_handled(news, 1, 2)
            slow.blocked.set()
            await write(news, bus, 3)
            await has_handled(news, 1, 2, 3)


async def test_a_holder_that_cannot_renew_stops(news: Database) -> None:
    bus = MemoryBus()
    consumer = Copyist(news)
    async with running_hub(news, bus) as hub, running(make_follower(news, hub, consumer)):
        await write(news, bus, 1)
        await has_handled(news, 1)
        async with news.connection() as conn:
            await conn.execute("UPDATE leases SET holder = 'another', expires_at = now() + interval '1 hour'")

        async def has_stopped() -> bool:
            async with news.connection() as conn:
                await conn.execute("INSERT INTO news VALUES (NULL)")
            before = consumer.batches
            await write(news, bus, 2)
            await asyncio.sleep(0.1)
            return consumer.batches == before

        await wait_until(has_stopped)
        assert await holder(news) == "another"


async def test_a_position_advances_only_from_where_it_is(news: Database) -> None:
    async with news.connection() as conn:
        assert await get_follower_position(conn, "x", start=5) == 5
        assert await get_follower_position(conn, "x", start=9) == 5
        assert await advance_follower(conn, "x", since=5, upto=7)
        assert not await advance_follower(conn, "x", since=5, upto=8)
        assert await get_follower_position(conn, "x", start=0) == 7
    batch = Batch(follower="x", since=5, upto=8, saved_upto=5)
    async with news.connection() as conn:
        with pytest.raises(LeaseLost):
            await batch.save(conn, 8)
