"""The hub: who waits is woken once what was written may be read, even if the wake is lost; and not without need."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Final

import asyncpg
import pytest

from homeserver.services.stream.hub import Hub, StreamKeys, Waiter
from storage.bus.base import Subscription
from storage.bus.memory import MemoryBus
from storage.database import Database, measure_database
from storage.errors import DatabaseUnavailable
from storage.positions import stream_position
from tests.fast_clock import FastClock
from tests.waiting import wait_until

WAIT_SECONDS = 5.0
MOMENT_SECONDS = 0.1

NEWS_KEYS: Final = """
    SELECT key, max(position) AS position FROM news WHERE position >= $1 AND position < $2 GROUP BY key LIMIT $3
"""


class DeafBus:
    """A bus that loses every wake."""

    def __init__(self) -> None:
        self._bus = MemoryBus()
        self.wanted: list[frozenset[str]] = []
        self.tell_of_gap: Callable[[], None] = lambda: None

    async def wake(self, keys: Collection[str], position: int) -> None:
        pass

    def subscribe(self) -> AbstractContextManager[Subscription]:
        return self._bus.subscribe()

    def listen_for(self, keys: Collection[str]) -> None:
        self.wanted.append(frozenset(keys))

    def on_gap(self, callback: Callable[[], None]) -> None:
        self.tell_of_gap = callback

    async def run(self) -> None:
        await self._bus.run()


@pytest.fixture
async def news(db: Database) -> Database:
    async with db.connection() as conn:
        await conn.execute("CREATE TABLE news (key text, position bigint NOT NULL DEFAULT stream_position())")
    return db


@asynccontextmanager
async def running_hub(db: Database, bus: MemoryBus | DeafBus, *, speed: float = 1.0) -> AsyncIterator[Hub]:
    hub = Hub(db=db, bus=bus, clock=FastClock(speed), streams=[StreamKeys(name="news", statement=NEWS_KEYS)])
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(hub.run())
        await hub.bound()
        yield hub
        run.cancel()


async def write(db: Database, key: str) -> int:
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO news (key) VALUES ($1)", key)
        return await stream_position(conn)


async def test_a_wake_reaches_those_who_wait_for_its_key_when_it_can_be_read(news: Database) -> None:
    bus = MemoryBus()
    async with running_hub(news, bus) as hub:
        with hub.subscribe({"room:!a:b"}) as concerned, hub.subscribe({"room:!other:b"}) as other:
            position = await write(news, "room:!a:b")
            await bus.wake({"room:!a:b"}, position)
            assert await concerned.wait(WAIT_SECONDS)
            assert await hub.bound() > position
            assert not await other.wait(MOMENT_SECONDS)


async def test_who_waits_for_a_kind_is_woken_by_each_of_its_keys(news: Database) -> None:
    bus = MemoryBus()
    async with running_hub(news, bus) as hub:
        with hub.subscribe({"room:"}) as rooms, hub.subscribe({"user:"}) as users:
            await bus.wake({"room:!a:b"}, await write(news, "room:!a:b"))
            assert await rooms.wait(WAIT_SECONDS)
            assert not await users.wait(MOMENT_SECONDS)


async def test_a_wake_waits_until_older_transactions_have_ended(news: Database, database_url: str) -> None:
    bus = MemoryBus()
    holder = await asyncpg.connect(database_url)
    try:
        async with running_hub(news, bus, speed=0.5) as hub:
            await holder.execute("BEGIN; SELECT stream_position()")
            with hub.subscribe({"room:!a:b"}) as waiter:
                position = await write(news, "room:!a:b")
                await bus.wake({"room:!a:b"}, position)
                assert not await waiter.wait(MOMENT_SECONDS)
                assert await hub.bound() <= position
                await holder.execute("COMMIT")
                assert await waiter.wait(WAIT_SECONDS)
                assert await hub.bound() > position
    finally:
        await holder.close()


@pytest.mark.parametrize("key", ["room:!a:b", "user:@a:b"])
async def test_a_lost_wake_is_made_up_for_by_the_tick(news: Database, key: str) -> None:
    async with running_hub(news, DeafBus()) as hub:
        with hub.subscribe({key}) as waiter, hub.subscribe({"room:!other:b"}) as other:
            await write(news, key)
            assert await waiter.wait(WAIT_SECONDS)
            assert not await other.wait(MOMENT_SECONDS)


async def test_the_tick_does_not_repeat_what_the_wake_has_told(news: Database) -> None:
    bus = MemoryBus()
    async with running_hub(news, bus, speed=20) as hub:
        with hub.subscribe({"room:!a:b"}) as waiter:
            await bus.wake({"room:!a:b"}, await write(news, "room:!a:b"))
            assert await waiter.wait(WAIT_SECONDS)
            ticks_seconds = 5 / 20
            assert not await waiter.wait(ticks_seconds), "woken twice for one row"


async def test_a_waiter_is_not_woken_by_what_it_has_read(news: Database) -> None:
    waiter = Waiter()
    waiter.notify(5)
    assert not await waiter.wait(MOMENT_SECONDS, upto=6)
    waiter.notify(6)
    assert await waiter.wait(MOMENT_SECONDS, upto=6)
    assert not await waiter.wait(MOMENT_SECONDS, upto=6)


async def test_too_much_news_in_one_tick_wakes_everybody(news: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.services.stream.hub.KEYS_PER_TICK_MAX", 10)
    async with running_hub(news, DeafBus()) as hub:
        with hub.subscribe({"room:!beyond:b"}) as waiter:
            async with news.connection() as conn:
                await conn.execute("INSERT INTO news (key) SELECT 'room:' || n FROM generate_series(1, 50) AS n")
            assert await waiter.wait(WAIT_SECONDS)


async def test_nothing_is_missed_between_reading_and_waiting(news: Database) -> None:
    """Readers that subscribe, ask, read and wait see every row, at whatever point of their loop its wake comes."""
    bus = MemoryBus()
    total = 150

    async def follow(hub: Hub) -> list[int]:
        seen: list[int] = []
        since = 0
        while len(seen) < total:
            with hub.subscribe({"room:!a:b"}) as waiter:
                upto = await hub.bound()
                async with news.connection() as conn:
                    rows = await conn.fetch(
                        "SELECT position FROM news WHERE position >= $1 AND position < $2 ORDER BY position",
                        since,
                        upto,
                    )
                seen += [row["position"] for row in rows]
                since = upto
                if not rows:
                    assert await waiter.wait(WAIT_SECONDS), "a row was written and nobody woke the reader"
        return seen

    # A clock that hardly moves: there is no tick in this test that could repair a lost wake.
    async with running_hub(news, bus, speed=0.01) as hub, asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(follow(hub)) for _ in range(3)]
        written = []
        for _ in range(total):
            written.append(await write(news, "room:!a:b"))
            await bus.wake({"room:!a:b"}, written[-1])
    for reader in readers:
        assert reader.result() == written


async def test_callers_at_the_same_time_share_a_query_and_get_a_bound_from_after_their_call(news: Database) -> None:
    hub = Hub(db=news, bus=MemoryBus(), clock=FastClock(), streams=())
    with measure_database() as usage:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(hub.bound())
    assert usage.statements <= 2
    for _ in range(20):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.bound())
            position = await write(news, "room:!a:b")
            assert await hub.bound() > position


async def test_a_caller_that_goes_away_does_not_spoil_the_answer_of_the_others(news: Database) -> None:
    hub = Hub(db=news, bus=MemoryBus(), clock=FastClock(), streams=())
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(hub.bound())
        others = [tasks.create_task(hub.bound()) for _ in range(3)]
        await asyncio.sleep(0)
        position = await write(news, "room:!a:b")
        first.cancel()
        late = tasks.create_task(hub.bound())
    assert first.cancelled() or first.result() > 0
    assert all(other.result() > 0 for other in others)
    assert late.result() > position


async def test_without_a_database_all_callers_are_told_at_once(database_url: str) -> None:
    db = Database(database_url)
    hub = Hub(db=db, bus=MemoryBus(), clock=FastClock(), streams=())
    with pytest.raises(DatabaseUnavailable):
        await hub.bound()
    async with db:
        assert await hub.bound() > 0


async def test_the_hub_outlives_an_outage_of_the_database(database_url: str) -> None:
    bus = MemoryBus()
    db = Database(database_url)
    hub = Hub(db=db, bus=bus, clock=FastClock(), streams=[StreamKeys(name="news", statement=NEWS_KEYS)])
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(hub.run())
        await bus.wake({"room:!a:b"}, 1)
        await asyncio.sleep(MOMENT_SECONDS)
        async with db:
            async with db.connection() as conn:
                await conn.execute("CREATE TABLE news (key text, position bigint NOT NULL DEFAULT stream_position())")
            with hub.subscribe({"room:!b:b"}) as waiter:
                await bus.wake({"room:!b:b"}, await write(db, "room:!b:b"))
                assert await waiter.wait(WAIT_SECONDS)
            run.cancel()


async def test_the_bus_is_told_what_somebody_waits_for(news: Database) -> None:
    """But for what is never woken over it, and not what others wait for already."""
    bus = DeafBus()
    async with running_hub(news, bus) as hub:
        with hub.subscribe({"room:!a:b", "presence:!a:b"}), hub.subscribe({"room:!a:b", "user:@a:b"}):
            assert bus.wanted == [{"room:!a:b"}, {"user:@a:b"}]
        with hub.subscribe({"room:!a:b", "user:@b:b"}):
            assert bus.wanted[2:] == [{"user:@b:b"}]


async def test_what_is_still_waited_for_is_told_again(news: Database) -> None:
    bus = DeafBus()
    async with running_hub(news, bus, speed=1000.0) as hub:
        with hub.subscribe({"room:!a:b"}):
            await wait_until(lambda: bus.wanted.count(frozenset({"room:!a:b"})) >= 3)
        await wait_until(lambda: bus.wanted[-1] == frozenset())
        with hub.subscribe({"room:!a:b"}):
            assert bus.wanted[-1] == {"room:!a:b"}, "it has been left, perhaps"


async def test_a_gap_in_what_the_bus_brings_does_not_wait_for_the_tick(news: Database) -> None:
    bus = DeafBus()
    async with running_hub(news, bus, speed=0.1) as hub:
        await asyncio.sleep(MOMENT_SECONDS)
        with hub.subscribe({"room:!a:b"}) as waiter, hub.subscribe({"room:!b:b"}) as other:
            await write(news, "room:!a:b")
            assert not await waiter.wait(MOMENT_SECONDS), "no wake has come, and the next tick is far"
            bus.tell_of_gap()
            assert await waiter.wait(15.0)
            assert not await other.wait(MOMENT_SECONDS)


async def test_leaving_the_hub_leaves_nothing_behind(news: Database) -> None:
    hub = Hub(db=news, bus=MemoryBus(), clock=FastClock(), streams=())
    with hub.subscribe({"room:!a:b", "user:@a:b"}), hub.subscribe({"room:!a:b"}):
        pass
    assert not hub._waiters
