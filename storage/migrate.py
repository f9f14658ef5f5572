"""Brings the schema to a version, forwards or back: numbered pairs of SQL files, each applied in one transaction.

Only one process migrates at a time (an advisory lock); the others wait for it and find nothing left to do.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg

from storage.database import Connection, translated
from storage.errors import DatabaseError

LOCK_ID: Final = 0x48656C696F
LOCK_TIMEOUT_MS: Final = 120_000
# A client's token may lie beyond every row; the offset of a rebase leaves that much room.
REBASE_MARGIN: Final = 100_000_000

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.(up|down)\.sql")


class MigrationError(DatabaseError):
    """The migrations in the package and those in the database do not fit together; nothing was changed by this one."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema, with its way back."""

    version: int
    name: str
    up: str
    down: str


@dataclass(frozen=True, slots=True)
class Status:
    """How the schema stands.

    Attributes:
        version: the newest version that the database has; 0 for an empty one.
        applied: all versions that it has.
        pending: what this program would apply.
        unknown: versions that only a newer program knows.
        rebase_needed: followers are ahead of the present transaction ids: the database was restored from a dump.
    """

    version: int
    applied: tuple[int, ...]
    pending: tuple[Migration, ...]
    unknown: tuple[int, ...]
    rebase_needed: bool


def load_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """The migrations of this program, or those in another folder, oldest first.

    Raises:
        MigrationError: a file is misnamed, a number is missing or used twice, or one of a pair is missing.
    """
    found: dict[int, dict[str, tuple[str, str]]] = {}
    for file in (folder or resources.files(__package__) / "migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        parts = _FILE_NAME.fullmatch(file.name)
        if parts is None:
            raise MigrationError(f"{file.name} is not named like 0001_name.up.sql")
        number, name, direction = int(parts[1]), parts[2], parts[3]
        if direction in found.setdefault(number, {}):
            raise MigrationError(f"There are two migrations {number:04}")
        found[number][direction] = (name, file.read_text(encoding="utf-8"))
    migrations = []
    for expected, (number, pair) in enumerate(sorted(found.items()), start=1):
        if number != expected:
            raise MigrationError(f"Migration {expected:04} is missing")
        if len(pair) != 2 or pair["up"][0] != pair["down"][0]:
            raise MigrationError(f"Migration {number:04} is not a pair of up and down")
        migrations.append(Migration(version=number, name=pair["up"][0], up=pair["up"][1], down=pair["down"][1]))
    return tuple(migrations)


CREATE_SCHEMA_MIGRATIONS: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
SELECT_HAS_SCHEMA: Final = "SELECT to_regclass('schema_migrations') IS NOT NULL"
SELECT_VERSIONS: Final = "SELECT version FROM schema_migrations ORDER BY version"
INSERT_VERSION: Final = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)"
DELETE_VERSION: Final = "DELETE FROM schema_migrations WHERE version = $1"
SELECT_REBASE_NEEDED: Final = "SELECT coalesce(max(position) > stream_bound(), false) FROM follower_positions"
SELECT_REBASE_STREAMS: Final = "SELECT rebase_streams($1)"
SELECT_MIGRATION_LOCK: Final = "SELECT pg_advisory_lock($1)"
SELECT_MIGRATION_UNLOCK: Final = "SELECT pg_advisory_unlock($1)"


async def migrate(url: str, *, to: int | None = None, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Brings the database at `url` to version `to` (the newest by default), and returns what it applied or took back.

    Raises:
        MigrationError: the database has versions that this program does not know, or there is no version `to`.
        DatabaseUnavailable: the database is away, or another process kept the lock.
        DatabaseError: a migration failed; the database is at the version before it.
    """
    known = load_migrations() if migrations is None else tuple(migrations)
    target = len(known) if to is None else to
    if not 0 <= target <= len(known):
        raise MigrationError(f"There is no version {target}; the newest is {len(known)}")
    async with _locked(url) as connection:
        await connection.execute(CREATE_SCHEMA_MIGRATIONS)
        applied = await _applied(connection)
        _refuse_unknown(applied, known)
        done = []
        for migration in known[:target]:
            if migration.version not in applied:
                async with connection.transaction():
                    await connection.execute(migration.up)
                    await connection.execute(INSERT_VERSION, migration.version, migration.name)
                done.append(migration)
        for migration in reversed(known[target:]):
            if migration.version in applied:
                async with connection.transaction():
                    await connection.execute(migration.down)
                    await connection.execute(DELETE_VERSION, migration.version)
                done.append(migration)
        return done


async def status(url: str) -> Status:
    """How the schema of the database at `url` stands; changes nothing.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    known = load_migrations()
    async with _connected(url) as connection:
        applied = await _applied(connection) if await connection.fetchval(SELECT_HAS_SCHEMA) else ()
        return Status(
            version=max(applied, default=0),
            applied=applied,
            pending=tuple(migration for migration in known if migration.version not in applied),
            unknown=tuple(version for version in applied if version > len(known)),
            rebase_needed=1 in applied and bool(await connection.fetchval(SELECT_REBASE_NEEDED)),
        )


SELECT_SCHEMA_VERSION: Final = "SELECT coalesce(max(version), 0) FROM schema_migrations"


async def schema_version(conn: Connection) -> int:
    """The newest version that the database has, once it has been migrated at all."""
    return int(await conn.fetchval(SELECT_SCHEMA_VERSION))


async def rebase(url: str) -> int:
    """Lifts all future positions above every position given so far, after a restore from a dump; returns the offset.

    No server may run meanwhile.
    """
    async with _locked(url) as connection:
        return int(await connection.fetchval(SELECT_REBASE_STREAMS, REBASE_MARGIN))


async def _applied(connection: Connection) -> tuple[int, ...]:
    return tuple(row["version"] for row in await connection.fetch(SELECT_VERSIONS))


def _refuse_unknown(applied: Sequence[int], known: Sequence[Migration]) -> None:
    unknown = [version for version in applied if version > len(known)]
    if unknown:
        raise MigrationError(
            f"The database is at version {max(unknown)}, this program knows {len(known)}: run a newer one, or migrate "
            "back with the one that migrated it"
        )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    with translated():
        connection = await asyncpg.connect(
            url,
            timeout=10,
            server_settings={
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "statement_timeout": "0",
                "application_name": "heliograph",
            },
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5)


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[Connection]:
    async with _connected(url) as connection:
        await connection.fetchval(SELECT_MIGRATION_LOCK, LOCK_ID)
        try:
            yield connection
        finally:
            if not connection.is_closed():
                await connection.fetchval(SELECT_MIGRATION_UNLOCK, LOCK_ID)
