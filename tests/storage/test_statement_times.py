"""What is told of statements: their times by name, and the slow ones in the log, without parameters."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from homeserver.config.schema import DatabaseConfig
from storage.database import Database, PoolSize

NAMED = "SELECT pg_sleep(0.06), $1::text"


def _count(statement: str) -> float:
    labels = {"statement": statement}
    return REGISTRY.get_sample_value("heliograph_database_statement_seconds_count", labels) or 0.0


async def test_slow_statements_are_told_by_name_and_without_parameters(database_url: str) -> None:
    config = DatabaseConfig(slow_statement_ms=50)
    async with Database(database_url, config, statement_names={NAMED: "sleeping.NAMED"}) as db, db.connection() as conn:
        with capture_logs() as logs:
            await conn.fetch(NAMED, "a secret")
            await conn.fetch("SELECT 1")
            await conn.fetchval("SELECT   pg_sleep(0.06),\n 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")
    slow = [entry for entry in logs if entry["event"] == "slow_statement"]
    assert [entry["statement"] for entry in slow] == [
        "sleeping.NAMED",
        "SELECT pg_sleep(0.06), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,",
    ]
    assert all(entry["log_level"] == "warning" and 50 <= entry["duration_ms"] < 10_000 for entry in slow)
    assert "a secret" not in str(logs)


async def test_no_statement_is_slow_if_the_limit_is_zero(database_url: str) -> None:
    async with Database(database_url, DatabaseConfig(slow_statement_ms=0)) as db, db.connection() as conn:
        with capture_logs() as logs:
            await conn.fetch(NAMED, "text")
    assert logs == []


async def test_times_are_counted_by_name_for_each_database(database_url: str) -> None:
    statement = "SELECT 'counted'"
    named, unnamed = _count("counting.NAMED"), _count("other")
    async with Database(database_url, statement_names={statement: "counting.NAMED"}) as db:
        async with Database(database_url) as nameless, nameless.connection() as conn:
            await conn.fetchval(statement)
        async with db.connection() as conn:
            await conn.fetchval(statement)
            await conn.fetchval(statement)
    assert _count("counting.NAMED") == named + 2
    assert _count("other") == unnamed + 1


async def test_the_pool_says_how_large_it_is(database_url: str) -> None:
    config = DatabaseConfig(pool_size_min=2, pool_size_max=3)
    db = Database(database_url, config)
    assert db.pool_size() == PoolSize(open=0, in_use=0)
    waits = REGISTRY.get_sample_value("heliograph_database_pool_wait_seconds_count")
    async with db, db.connection():
        assert db.pool_size() == PoolSize(open=2, in_use=1)
    assert REGISTRY.get_sample_value("heliograph_database_pool_wait_seconds_count") == (waits or 0) + 1
