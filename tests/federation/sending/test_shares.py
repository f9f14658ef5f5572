"""Workers share the other servers out: each belongs to one of them, whoever comes and goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from federation.outbound.shares import SHARES, Shares, share_of
from homeserver.core.ids import ServerName
from storage.database import Database
from tests.fast_clock import FastClock
from tests.waiting import wait_until


@asynccontextmanager
async def running(db: Database, *, speed: float = 100.0) -> AsyncIterator[Shares]:
    shares = Shares(db=db, clock=FastClock(speed))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(shares.run())
        yield shares
        task.cancel()


def are_shared(*workers: Shares) -> bool:
    counts = [len(worker.held) for worker in workers]
    return sum(counts) == SHARES and max(counts) - min(counts) <= 2


async def test_one_worker_has_all(db: Database) -> None:
    async with running(db) as only:
        await wait_until(lambda: are_shared(only))
        assert only.serves(ServerName("there.example"))
    assert not only.held


async def test_workers_that_come_and_go_have_about_the_same_and_never_the_same(db: Database) -> None:
    async with running(db) as one:
        await wait_until(lambda: are_shared(one))
        async with running(db) as two, running(db) as three:
            await wait_until(lambda: are_shared(one, two, three))
            assert one.held | two.held | three.held == set(range(SHARES))
        await wait_until(lambda: are_shared(one))


async def test_a_share_is_given_back_only_when_its_work_has_ended(db: Database) -> None:
    async with running(db) as one:
        await wait_until(lambda: are_shared(one))
        may_end = asyncio.Event()

        async def end_work(held: frozenset[int]) -> None:
            await may_end.wait()

        one.on_change(end_work)
        async with running(db) as two:
            await wait_until(lambda: len(one.held) == SHARES // 2)
            assert not two.held
            may_end.set()
            await wait_until(lambda: are_shared(one, two))


async def test_a_worker_that_others_have_robbed_stops(db: Database) -> None:
    async with running(db) as one:
        await wait_until(lambda: are_shared(one))
        async with db.connection() as conn:
            await conn.execute(
                "UPDATE leases SET holder = 'another', expires_at = now() + interval '1 hour'"
                " WHERE name LIKE 'federation_share:%'"
            )
        await wait_until(lambda: not one.held)


def test_every_worker_finds_the_same_share() -> None:
    """A change would give servers to two workers at once while a new version is being rolled out."""
    assert share_of(ServerName("matrix.org")) == 26
    assert {share_of(ServerName(f"s{number}.example")) for number in range(1000)} == set(range(SHARES))
