"""A lease has one holder at a time, who loses it only by the expiry, and gets it back only if nobody else took it."""

import asyncio

from storage.database import Database
from storage.leases import (
    PROCESS,
    acquire_leases,
    delete_leases,
    delete_leases_of_process,
    list_leases,
    new_holder,
    renew_leases,
)

MINUTE_MS = 60_000


async def acquire(db: Database, holder: str, *names: str) -> frozenset[str]:
    async with db.connection() as conn:
        return await acquire_leases(conn, names, holder=holder, duration_ms=MINUTE_MS)


async def expire(db: Database, name: str) -> None:
    async with db.connection() as conn:
        await conn.execute("UPDATE leases SET expires_at = now() - interval '1 ms' WHERE name = $1", name)


async def test_one_of_many_gets_each_lease(db: Database) -> None:
    names = [f"lease{number}" for number in range(5)]
    async with asyncio.TaskGroup() as tasks:
        attempts = [tasks.create_task(acquire(db, f"holder{number}", *names)) for number in range(8)]
    assert sorted(name for attempt in attempts for name in attempt.result()) == names


async def test_the_holder_may_acquire_again_and_others_may_not(db: Database) -> None:
    assert await acquire(db, "a", "x", "y") == {"x", "y"}
    assert await acquire(db, "b", "x", "z") == {"z"}
    assert await acquire(db, "a", "x") == {"x"}


async def test_an_expired_lease_is_taken_over_and_the_old_holder_cannot_renew(db: Database) -> None:
    await acquire(db, "a", "x", "y")
    await expire(db, "x")
    assert await acquire(db, "b", "x", "y") == {"x"}
    async with db.connection() as conn:
        assert await renew_leases(conn, ["x", "y"], holder="a", duration_ms=MINUTE_MS) == {"y"}
        assert await list_leases(conn, ["x", "y"]) == {"x": "b", "y": "a"}


async def test_a_renewal_moves_the_expiry(db: Database) -> None:
    await acquire(db, "a", "x")
    await expire(db, "x")
    async with db.connection() as conn:
        assert await renew_leases(conn, ["x"], holder="a", duration_ms=MINUTE_MS) == {"x"}
    assert await acquire(db, "b", "x") == frozenset()


async def test_only_the_holder_gives_back(db: Database) -> None:
    await acquire(db, "a", "x")
    async with db.connection() as conn:
        await delete_leases(conn, ["x"], holder="b")
        assert await list_leases(conn, ["x"]) == {"x": "a"}
        await delete_leases(conn, ["x"], holder="a")
    assert await acquire(db, "b", "x") == {"x"}


async def test_the_leases_of_a_dead_process_are_given_back_together(db: Database) -> None:
    ours, dead = new_holder(), "dead:1"
    await acquire(db, ours, "x")
    await acquire(db, dead, "y")
    await acquire(db, "dead:2", "z")
    await acquire(db, "deadly:1", "w")
    assert ours.startswith(f"{PROCESS}:")
    async with db.connection() as conn:
        assert await delete_leases_of_process(conn, "dead") == 2
    assert await acquire(db, "b", "w", "x", "y", "z") == {"y", "z"}


async def test_looking_for_a_lease_that_another_holds_writes_nothing(db: Database) -> None:
    await acquire(db, "a", "x")
    async with db.connection() as conn:
        before = await conn.fetchval("SELECT xmax::text FROM leases WHERE name = 'x'")
        assert await acquire_leases(conn, ["x"], holder="b", duration_ms=MINUTE_MS) == frozenset()
        assert await conn.fetchval("SELECT xmax::text FROM leases WHERE name = 'x'") == before
