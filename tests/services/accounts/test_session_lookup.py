"""Looking sessions up: many at once, never older than the question, and whoever gives up spoils nothing for others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from homeserver.config.schema import DatabaseConfig
from homeserver.core.ids import UserId
from homeserver.services.accounts.session_lookup import SessionLookup
from storage import sessions, users
from storage.database import Database, measure_database
from storage.errors import DatabaseUnavailable
from storage.sessions import TokenPair
from tests.fast_clock import FastClock

ALICE = UserId("@alice:test")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A database with a user."""
    async with Database(database_url, DatabaseConfig(pool_size_max=2)) as database:
        async with database.connection() as conn:
            await users.insert_user(conn, ALICE, password_hash=None, created_ts=0)
        yield database


async def new_session(db: Database) -> tuple[int, int]:
    """A session with a pair of tokens."""
    async with db.transaction() as conn:
        session_id = await sessions.insert_session(conn, user_id=ALICE, device_id=None, created_ts=0)
        pair = TokenPair(
            session_id=session_id,
            access_hash=b"x",
            access_expires_ts=None,
            refresh_hash=None,
            refresh_expires_ts=None,
            created_ts=0,
        )
        return session_id, await sessions.insert_pair(conn, pair)


def lookup(db: Database, *, fresh_ms: int = 0) -> SessionLookup:
    """As one process has it."""
    return SessionLookup(db=db, clock=FastClock(speed=1), fresh_ms=fresh_ms)


async def test_a_session_is_found_with_its_user(db: Database) -> None:
    key = await new_session(db)
    row = await lookup(db).find(key)
    assert row is not None
    assert (row.session_id, row.pair_id, row.user_id, row.used) == (*key, ALICE, True)
    assert await lookup(db).find((key[0] + 1, key[1])) is None
    other_pair = await lookup(db).find((key[0], key[1] + 1))
    assert other_pair is not None
    assert other_pair.pair_id is None, "the session lives, those tokens do not"


async def test_a_pair_of_another_session_is_not_taken(db: Database) -> None:
    one, two = await new_session(db), await new_session(db)
    mixed = await lookup(db).find((one[0], two[1]))
    assert mixed is not None
    assert mixed.pair_id is None


async def test_many_at_once_share_few_reads(db: Database) -> None:
    keys = [await new_session(db) for _ in range(20)]
    found = lookup(db)
    with measure_database() as usage:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(found.find(keys[number % 20])) for number in range(400)]
    for number, task in enumerate(tasks):
        row = task.result()
        assert row is not None
        assert (row.session_id, row.pair_id) == keys[number % 20]
    assert usage.statements <= 2


async def test_an_end_is_seen_by_whoever_asks_after_it(db: Database) -> None:
    found = lookup(db)
    for _ in range(30):
        key = await new_session(db)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(found.find(key))
            async with db.connection() as conn:
                await sessions.delete_session(conn, key[0])
            assert await found.find(key) is None


async def test_what_was_read_is_believed_for_a_while(db: Database) -> None:
    key = await new_session(db)
    clock = FastClock(speed=0.001)
    found = SessionLookup(db=db, clock=clock, fresh_ms=1000)
    with measure_database() as usage:
        for _ in range(10):
            assert await found.find(key) is not None
    assert usage.statements == 1
    async with db.connection() as conn:
        await sessions.delete_session(conn, key[0])
    assert await found.find(key) is not None
    clock.advance(1.1)
    assert await found.find(key) is None


async def test_what_is_forgotten_is_read_again(db: Database) -> None:
    key = await new_session(db)
    found = lookup(db, fresh_ms=60_000)
    assert await found.find(key) is not None
    async with db.connection() as conn:
        await sessions.delete_session(conn, key[0])
    found.forget()
    assert await found.find(key) is None


async def test_a_read_that_began_before_the_end_is_not_remembered(db: Database) -> None:
    for _ in range(30):
        key = await new_session(db)
        found = lookup(db, fresh_ms=60_000)
        async with asyncio.TaskGroup() as group:
            group.create_task(found.find(key))
            async with db.connection() as conn:
                await sessions.delete_session(conn, key[0])
            found.forget()
        assert await found.find(key) is None


async def test_who_gives_up_does_not_take_the_others_along(db: Database) -> None:
    key = await new_session(db)
    found = lookup(db)
    # With all connections taken, the first to ask waits for one, and the others wait for the first.
    async with asyncio.TaskGroup() as group:
        async with db.connection(), db.connection():
            tasks = [group.create_task(found.find(key)) for _ in range(5)]
            for _ in range(3):
                await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.wait([tasks[0]])
            assert not any(task.done() for task in tasks[1:])
    assert all(task.result() is not None for task in tasks[1:])


async def test_a_database_that_is_away_is_told_to_all(db: Database) -> None:
    key = await new_session(db)
    found = lookup(db)
    await db.close()
    outcomes = []
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable) as raised:
            await found.find(key)
        outcomes.append(raised.value)
    await db.open()
    assert await found.find(key) is not None
