"""The pool: its limits, its errors in our words, its way back after an outage, and what a transaction forbids."""

import asyncio
import secrets

import asyncpg
import pytest

from homeserver.config.schema import DatabaseConfig
from homeserver.core.errors import InvalidParam, UnavailableForNow
from storage.bus.memory import MemoryBus
from storage.database import Database, forbid_in_transaction, measure_database
from storage.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseUnavailable,
    ForbiddenInTransaction,
    Serialization,
    TimeLimitReached,
    UniqueViolation,
    UnstorableValue,
)
from tests.waiting import wait_until


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO follower_positions VALUES ('kept', 1)")

    async def fail() -> None:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO follower_positions VALUES ('dropped', 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with db.connection() as conn:
        assert [row["name"] for row in await conn.fetch("SELECT name FROM follower_positions")] == ["kept"]


async def test_inside_a_transaction_there_are_only_database_calls(db: Database) -> None:
    bus = MemoryBus()
    async with db.transaction():
        with pytest.raises(ForbiddenInTransaction):
            await bus.wake({"room:!a:b"}, 1)
        with pytest.raises(ForbiddenInTransaction):
            async with db.connection():
                pass
        with pytest.raises(ForbiddenInTransaction):
            async with db.transaction():
                pass
        with pytest.raises(ForbiddenInTransaction):
            forbid_in_transaction("A sleep")
    forbid_in_transaction("A sleep")
    await bus.wake({"room:!a:b"}, 1)


async def test_after_a_failed_transaction_nothing_is_forbidden(db: Database) -> None:
    with pytest.raises(DatabaseError):
        async with db.transaction() as conn:
            await conn.execute("SELECT 1/0")
    forbid_in_transaction("A sleep")


async def test_another_task_is_not_concerned(db: Database) -> None:
    inside, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.transaction():
            inside.set()
            await done.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await inside.wait()
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT 1") == 1
        done.set()


async def test_a_unique_violation_says_which_constraint(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("INSERT INTO follower_positions VALUES ('a', 1)")
        with pytest.raises(UniqueViolation) as raised:
            await conn.execute("INSERT INTO follower_positions VALUES ('a', 1)")
        assert raised.value.constraint == "follower_positions_pkey"
        with pytest.raises(ConstraintViolation):
            await conn.execute("INSERT INTO follower_positions VALUES ('b', NULL)")


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", secrets.token_hex(10_000)])
async def test_a_text_that_cannot_be_stored_is_the_callers_mistake(db: Database, value: str) -> None:
    async with db.connection() as conn:
        with pytest.raises(UnstorableValue) as raised:
            await conn.execute("INSERT INTO follower_positions VALUES ($1, 1)", value)
    assert isinstance(raised.value, InvalidParam)
    assert raised.value.status == 400


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**40])
async def test_a_number_out_of_range_is_the_callers_mistake(db: Database, value: int) -> None:
    async with db.connection() as conn:
        with pytest.raises(UnstorableValue):
            await conn.execute("INSERT INTO follower_positions VALUES ('a', $1)", value)


async def test_json_stays_text(db: Database) -> None:
    async with db.connection() as conn:
        assert await conn.fetchval("SELECT '{\"a\": 1}'::json") == '{"a": 1}'


async def test_an_error_of_a_stored_function_keeps_its_code(db: Database) -> None:
    async with db.connection() as conn:
        with pytest.raises(DatabaseError) as raised:
            await conn.execute("DO $$ BEGIN RAISE EXCEPTION 'moved' USING ERRCODE = 'HG001'; END $$")
    assert raised.value.sqlstate == "HG001"


async def test_a_deadlock_is_a_serialization_failure(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("INSERT INTO follower_positions VALUES ('a', 1), ('b', 1)")
    barrier = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with db.transaction() as conn:
            await conn.execute("UPDATE follower_positions SET position = 2 WHERE name = $1", first)
            await barrier.wait()
            await conn.execute("UPDATE follower_positions SET position = 2 WHERE name = $1", second)

    async def lock_both() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lock("a", "b"))
            tasks.create_task(lock("b", "a"))

    with pytest.raises(ExceptionGroup) as raised:
        await lock_both()
    assert raised.group_contains(Serialization)


async def test_limits_of_statement_lock_and_idle_transaction(database_url: str) -> None:
    config = DatabaseConfig(statement_timeout_ms=150, lock_timeout_ms=50, idle_in_transaction_timeout_ms=50)
    async with Database(database_url, config) as db:
        async with db.connection() as conn:
            with pytest.raises(TimeLimitReached):
                await conn.execute("SELECT pg_sleep(5)")
            await conn.execute("INSERT INTO follower_positions VALUES ('a', 1)")
        other = await asyncpg.connect(database_url)
        try:
            await other.execute("BEGIN; UPDATE follower_positions SET position = 2")
            async with db.connection() as conn:
                with pytest.raises(TimeLimitReached):
                    await conn.execute("UPDATE follower_positions SET position = 3")
        finally:
            await other.close()

        async def be_idle() -> None:
            async with db.transaction() as conn:
                await conn.execute("UPDATE follower_positions SET position = 4")
                await asyncio.sleep(0.5)
                await conn.execute("UPDATE follower_positions SET position = 5")

        with pytest.raises(DatabaseUnavailable):
            await be_idle()
        async with db.connection() as conn:
            assert await conn.fetchval("SELECT position FROM follower_positions") == 1


async def test_when_all_connections_are_in_use_the_wait_has_a_limit(database_url: str) -> None:
    config = DatabaseConfig(pool_size_max=1, acquire_timeout_ms=50)
    inside, done = asyncio.Event(), asyncio.Event()
    async with Database(database_url, config) as db:

        async def hold() -> None:
            async with db.connection():
                inside.set()
                await done.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hold())
            await inside.wait()
            with pytest.raises(DatabaseUnavailable) as raised:
                async with db.connection():
                    pass
            done.set()
    assert isinstance(raised.value, UnavailableForNow)
    assert raised.value.status == 503


async def test_a_cancelled_task_leaves_a_clean_connection(database_url: str) -> None:
    async with Database(database_url, DatabaseConfig(pool_size_max=1)) as db:

        async def work() -> None:
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO follower_positions VALUES ('a', 1)")
                await conn.execute("SELECT pg_sleep(5)")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await work()
        async with db.connection() as conn:
            assert not conn.is_in_transaction()
            assert await conn.fetchval("SELECT count(*) FROM follower_positions") == 0


async def test_lost_connections_are_replaced(db: Database, database_url: str) -> None:
    async def lose() -> None:
        async with db.connection() as conn:
            backend = await conn.fetchval("SELECT pg_backend_pid()")
            other = await asyncpg.connect(database_url)
            try:
                await other.fetchval("SELECT pg_terminate_backend($1)", backend)
            finally:
                await other.close()
            await conn.fetchval("SELECT 1")
            await conn.fetchval("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await lose()

    async def works() -> bool:
        try:
            async with db.connection() as conn:
                return bool(await conn.fetchval("SELECT 1") == 1)
        except DatabaseUnavailable:
            return False

    await wait_until(works)


async def test_a_database_that_is_not_there() -> None:
    with pytest.raises(DatabaseUnavailable):
        await Database("postgresql://somebody@127.0.0.1:1/nothing").open()


async def test_a_closed_pool_is_unavailable(database_url: str) -> None:
    db = Database(database_url)
    with pytest.raises(DatabaseUnavailable):
        async with db.connection():
            pass
    async with db:
        pass
    with pytest.raises(DatabaseUnavailable):
        async with db.connection():
            pass


async def test_a_wrong_database_name_is_told(database_url: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        await Database(database_url.replace("/test_", "/missing_")).open()
    assert not isinstance(raised.value, DatabaseUnavailable)
    assert raised.value.sqlstate == "3D000"


async def test_statements_are_counted_for_a_piece_of_work_and_its_tasks(db: Database) -> None:
    async def ask() -> None:
        async with db.connection() as conn:
            await conn.fetchval("SELECT 1")

    with measure_database() as usage:
        await ask()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
    await ask()
    assert usage.statements == 2
    assert usage.seconds > 0


async def test_each_connection_knows_the_types_that_another_has_asked_about(db: Database) -> None:
    asked = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%typeinfo' || '_tree(%'"
    counts = []
    async with db.connection() as one, db.connection() as other:
        for conn in (one, other):
            assert await conn.fetchval("SELECT ARRAY[1, 2]::integer[]") == [1, 2]
            counts.append(await conn.fetchval(asked))
    assert counts == [1, 0]
