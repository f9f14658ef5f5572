"""Servers that do not answer are left alone, by all workers, for longer and longer."""

import asyncio
from contextlib import suppress

import pytest

from federation.outbound.backoff import DAY_MS, JITTER, STEPS, Destinations
from homeserver.core.ids import ServerName
from storage.database import Database
from storage.destinations import find_destination, list_failing_destinations
from tests.fast_clock import FastClock
from tests.waiting import wait_until

AWAY, WELL = ServerName.parse("away.example"), ServerName.parse("well.example")


@pytest.fixture
def destinations(db: Database, clock: FastClock) -> Destinations:
    return Destinations(db=db, clock=clock)


async def wait_out(destinations: Destinations, clock: FastClock) -> float:
    """Lets the pause pass; returns how long it was, in milliseconds."""
    pause_ms = (await destinations.status(AWAY)).retry_at_ts - clock.now_ms()
    clock.advance(pause_ms / 1000 + 0.01)
    assert await destinations.is_due(AWAY)
    return pause_ms


async def test_pauses_grow_to_a_day_and_then_to_a_week(destinations: Destinations, clock: FastClock) -> None:
    assert await destinations.is_due(AWAY)
    pauses = []
    for _ in range(32):
        await destinations.failed(AWAY)
        assert not await destinations.is_due(AWAY)
        pauses.append(await wait_out(destinations, clock))
    for number, pause in enumerate(pauses[:9]):
        expected = STEPS.first_ms * STEPS.factor**number
        assert expected * (1 - JITTER) - 1000 <= pause <= expected * (1 + JITTER)
    in_between = pauses[10:20]
    assert all(DAY_MS * (1 - JITTER) - 1000 <= pause <= DAY_MS * (1 + JITTER) for pause in in_between)
    assert len(set(in_between)) > 1
    assert all(7 * DAY_MS * (1 - JITTER) - 1000 <= pause <= 7 * DAY_MS * (1 + JITTER) for pause in pauses[-3:])


async def test_failures_at_the_same_time_count_once(destinations: Destinations) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(destinations.failed(AWAY))
    assert (await destinations.status(AWAY)).backoff_ms == STEPS.first_ms


async def test_an_answer_ends_it(destinations: Destinations, clock: FastClock) -> None:
    back: list[ServerName] = []
    destinations.on_back(back.append)
    for _ in range(3):
        await destinations.failed(AWAY)
        await wait_out(destinations, clock)
    assert (await destinations.status(AWAY)).backoff_ms > STEPS.first_ms
    await destinations.succeeded(AWAY)
    await destinations.succeeded(WELL)
    assert back == [AWAY]
    await destinations.failed(AWAY)
    assert (await destinations.status(AWAY)).backoff_ms == STEPS.first_ms


async def test_all_workers_know(db: Database, clock: FastClock, destinations: Destinations) -> None:
    other = Destinations(db=db, clock=clock)
    await destinations.failed(AWAY)
    assert not await other.is_due(AWAY)
    await destinations.succeeded(AWAY)
    clock.advance(6)  # what the other has read is believed for five seconds
    assert await other.is_due(AWAY)


async def test_success_is_written_once_an_hour(db: Database, destinations: Destinations, clock: FastClock) -> None:
    async def written() -> int:
        async with db.connection() as conn:
            row = await find_destination(conn, WELL)
        assert row is not None
        return row.last_success_ts

    await destinations.succeeded(WELL)
    first = await written()
    clock.advance(60)
    await destinations.succeeded(WELL)
    assert await written() == first
    clock.advance(3600)
    await destinations.succeeded(WELL)
    assert await written() > first


async def test_a_server_may_ask_to_be_left_alone(destinations: Destinations, clock: FastClock) -> None:
    await destinations.paused(WELL, retry_after_ms=10_000)
    assert not await destinations.is_due(WELL)
    clock.advance(11)
    assert await destinations.is_due(WELL)
    await destinations.paused(WELL, retry_after_ms=10**15)
    assert (await destinations.status(WELL)).retry_at_ts <= clock.now_ms() + 3_600_000


async def test_who_asks_something_of_us_is_due_at_once(db: Database, clock: FastClock) -> None:
    """Also if another worker has found out that it was away; but not all the time."""
    here, there = Destinations(db=db, clock=clock), Destinations(db=db, clock=clock)
    back: list[ServerName] = []
    here.on_back(back.append)
    running = asyncio.create_task(here.run())
    try:
        clock.advance(100)
        await there.failed(AWAY)
        here.note_contact(AWAY)
        here.note_contact(WELL)
        await wait_until(lambda: bool(back))
        assert back == [AWAY]
        assert await here.is_due(AWAY)
        status = await here.status(AWAY)
        assert status.failing_since_ts is not None
        assert status.backoff_ms == STEPS.first_ms
        await there.failed(AWAY)
        here.note_contact(AWAY)
        clock.advance(61)
        await there.failed(AWAY)
        assert back == [AWAY]
        here.note_contact(AWAY)
        await wait_until(lambda: len(back) == 2)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_who_is_not_called_any_more_is_forgotten(db: Database, clock: FastClock) -> None:
    destinations = Destinations(db=db, clock=clock)
    await destinations.failed(AWAY)
    await destinations.succeeded(WELL)
    fast = FastClock(speed=50.0)
    fast.advance(clock.monotonic())
    running = asyncio.create_task(Destinations(db=db, clock=fast).run())

    async def known() -> bool:
        async with db.connection() as conn:
            return bool(await find_destination(conn, WELL) or await list_failing_destinations(conn, after="", limit=9))

    try:
        assert await known()  # by now it runs
        fast.advance(31 * 86_400)

        async def forgotten() -> bool:
            return not await known()

        await wait_until(forgotten)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
