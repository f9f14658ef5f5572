"""Readers of a stream lose nothing and see nothing twice, whatever writers do; other databases do not delay them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from storage.database import Connection, Database
from storage.positions import stream_bound, stream_position

WRITERS = 8
ROWS_PER_WRITER = 60


@asynccontextmanager
async def open_transaction(url: str, begin: str = "BEGIN") -> AsyncIterator[tuple[Connection, int]]:
    """A session with a transaction that has its id and is not ended; with the id."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(begin)
        yield connection, int(await connection.fetchval("SELECT pg_current_xact_id()::text::bigint"))
    finally:
        await connection.close()


async def write_one(db: Database, writer: int = 1) -> int:
    """A whole transaction of one row; returns its position."""
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO streamed (writer, number) VALUES ($1, 1)", writer)
        return await stream_position(conn)


def other_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture
async def streamed(db: Database) -> Database:
    async with db.connection() as conn:
        await conn.execute(
            "CREATE TABLE streamed (serial bigint GENERATED ALWAYS AS IDENTITY, writer int, number int,"
            " position bigint NOT NULL DEFAULT stream_position())"
        )
    return db


async def write(db: Database, writer: int, *, seed: int) -> None:
    """Transactions of random length, some of several rows, some rolled back, some in a savepoint."""
    choice = random.Random(seed * 1000 + writer)
    number = 0
    while number < ROWS_PER_WRITER:
        rows = choice.choice((1, 1, 1, 3))
        try:
            async with db.transaction() as conn:
                if choice.random() < 0.3:
                    await stream_position(conn)
                await asyncio.sleep(choice.random() * 0.004)
                async with conn.transaction():
                    for offset in range(rows):
                        await conn.execute(
                            "INSERT INTO streamed (writer, number) VALUES ($1, $2)", writer, number + offset
                        )
                await asyncio.sleep(choice.random() * 0.004)
                if choice.random() < 0.1:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            continue
        number += rows


async def read_between(conn: Connection, since: int, upto: int) -> list[tuple[int, int]]:
    rows = await conn.fetch(
        "SELECT writer, number FROM streamed WHERE position >= $1 AND position < $2 ORDER BY position, serial",
        since,
        upto,
    )
    return [(row["writer"], row["number"]) for row in rows]


async def poll(db: Database, finished: asyncio.Event) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    since = 0
    while True:
        last_round = finished.is_set()
        async with db.connection() as conn:
            upto = await stream_bound(conn)
            assert upto >= since, "the bound went back"
            seen += await read_between(conn, since, upto)
        since = upto
        if last_round:
            return seen
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(3))
async def test_concurrent_writers_lose_nothing_and_repeat_nothing(streamed: Database, seed: int) -> None:
    finished = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        poller = group.create_task(poll(streamed, finished))
        async with asyncio.TaskGroup() as writers:
            for writer in range(WRITERS):
                writers.create_task(write(streamed, writer, seed=seed))
        finished.set()
    async with streamed.connection() as conn:
        stored = await read_between(conn, 0, 2**62)
    assert len(stored) >= WRITERS * ROWS_PER_WRITER
    assert sorted(poller.result()) == sorted(stored)
    for writer in range(WRITERS):
        numbers = [number for who, number in poller.result() if who == writer]
        assert numbers == sorted(numbers), f"a writer's own rows came out of order (seed {seed})"


async def test_an_open_transaction_of_this_database_holds_the_bound(streamed: Database, database_url: str) -> None:
    async with open_transaction(database_url) as (writer, position):
        later = await write_one(streamed)
        assert later > position
        async with streamed.connection() as reader:
            assert await stream_bound(reader) <= position
            await writer.execute("INSERT INTO streamed (writer, number) VALUES (2, 1)")
            assert await stream_bound(reader) <= position
            await writer.execute("COMMIT")
            upto = await stream_bound(reader)
            assert upto > later
            assert await read_between(reader, 0, upto) == [(2, 1), (1, 1)]


async def test_another_database_does_not_hold_the_bound(streamed: Database, database_url: str) -> None:
    async with open_transaction(other_database(database_url, "postgres")) as (_, foreign_position):
        position = await write_one(streamed)
        assert position > foreign_position
        async with streamed.connection() as conn:
            upto = await stream_bound(conn)
            assert upto > position
            assert await read_between(conn, 0, upto) == [(1, 1)]


async def test_a_reader_without_special_rights_sees_the_writers_of_other_roles(
    streamed: Database, database_url: str
) -> None:
    async with open_transaction(database_url) as (_, position):
        await write_one(streamed)
        async with streamed.connection() as conn:
            await conn.execute("CREATE ROLE plain_reader NOSUPERUSER")
            try:
                await conn.execute("SET ROLE plain_reader")
                assert await stream_bound(conn) <= position
            finally:
                await conn.execute("RESET ROLE")
                await conn.execute("DROP ROLE plain_reader")


async def test_a_bound_asked_again_in_one_transaction_sees_new_sessions(streamed: Database, database_url: str) -> None:
    """PostgreSQL keeps the list of sessions for a transaction; the bound must not."""
    async with open_transaction(database_url) as (writer, position):
        reader = await asyncpg.connect(database_url)
        try:
            await reader.execute("BEGIN")
            await stream_bound(reader)
            await writer.execute("COMMIT")
            await writer.execute("BEGIN")
            late = int(await writer.fetchval("SELECT stream_position()"))
            last = await write_one(streamed)
            assert position < late < last
            assert position < await stream_bound(reader) <= late
        finally:
            await reader.close()


async def test_a_snapshot_for_the_whole_transaction_gets_the_bound_of_that_snapshot(
    streamed: Database, database_url: str
) -> None:
    async with open_transaction(database_url) as (writer, position):
        await writer.execute("INSERT INTO streamed (writer, number) VALUES (1, 1)")
        await write_one(streamed)
        async with open_transaction(database_url, "BEGIN ISOLATION LEVEL REPEATABLE READ") as (reader, _):
            await writer.execute("COMMIT")
            assert await stream_bound(reader) <= position, "the row is not visible to this snapshot"
            await reader.execute("COMMIT")
            assert await stream_bound(reader) > position


async def test_an_aborted_transaction_lets_go_of_the_bound(streamed: Database, database_url: str) -> None:
    async with open_transaction(database_url) as (writer, position):
        await writer.execute("INSERT INTO streamed (writer, number) VALUES (1, 1)")
        await writer.execute("ROLLBACK")
        async with streamed.connection() as conn:
            upto = await stream_bound(conn)
            assert upto > position
            assert await read_between(conn, 0, upto) == []


async def test_a_prepared_transaction_holds_the_bound(streamed: Database, database_url: str) -> None:
    async with open_transaction(database_url) as (writer, position):
        await writer.execute("INSERT INTO streamed (writer, number) VALUES (2, 1)")
        await writer.execute("PREPARE TRANSACTION 'held'")
        await write_one(streamed)
        async with streamed.connection() as conn:
            assert await stream_bound(conn) <= position
            await writer.execute("COMMIT PREPARED 'held'")
            upto = await stream_bound(conn)
            assert upto > position
            assert await read_between(conn, 0, upto) == [(2, 1), (1, 1)]


async def test_a_rebase_lifts_positions_above_all_others(streamed: Database) -> None:
    async with streamed.connection() as conn:
        await conn.execute("INSERT INTO streamed (position) VALUES (5000000000)")
        assert await conn.fetchval("SELECT rebase_streams(1000)") == 5_000_001_000
    position = await write_one(streamed)
    assert position > 5_000_001_000
    async with streamed.connection() as conn:
        assert await conn.fetchval("SELECT largest_position()") == position
        assert await stream_bound(conn) > position
