"""The embedded PostgreSQL: it starts, stops, and survives whatever kills it or its owner."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from storage.embedded import DURABLE, AlreadyOwned, EmbeddedPostgres, EmbeddedPostgresError
from tests.conftest import FAST
from tests.waiting import wait_until

OWNER = """
import sys, time, pathlib
from storage.embedded import EmbeddedPostgres
print(EmbeddedPostgres(pathlib.Path(sys.argv[1])).start(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def data(folder: Path) -> Path:
    """Where PostgreSQL keeps its data."""
    return folder / "postgres"


async def ask(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def postmaster_pid(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


async def test_data_outlives_a_restart(data: Path) -> None:
    postgres = EmbeddedPostgres(data, settings=FAST)
    url = postgres.start()
    await ask(url, "CREATE TABLE kept AS SELECT 1 AS one")
    pid = postmaster_pid(data)
    postgres.stop()
    assert not is_running(pid)
    again = EmbeddedPostgres(data, settings=FAST)
    assert await ask(again.start(), "SELECT one FROM kept") == 1
    again.stop()


async def test_the_usual_settings_are_durable(data: Path) -> None:
    postgres = EmbeddedPostgres(data)
    url = postgres.start()
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert await ask(url, f"SHOW {setting}") == DURABLE[setting] == "on"
    assert await ask(url, "SHOW listen_addresses") == ""
    assert await ask(url, "SHOW server_encoding") == "UTF8"
    postgres.stop()


async def test_a_killed_owner_leaves_a_database_that_the_next_takes_over(data: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, data], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        await ask(owner.stdout.readline().strip(), "CREATE TABLE kept AS SELECT 1 AS one")
        pid = postmaster_pid(data)
        owner.kill()
    assert is_running(pid)
    postgres = EmbeddedPostgres(data)
    assert await ask(postgres.start(), "SELECT one FROM kept") == 1
    assert postmaster_pid(data) == pid
    postgres.stop()
    assert not is_running(pid)


async def test_a_killed_database_recovers_what_was_committed(data: Path) -> None:
    postgres = EmbeddedPostgres(data)
    await ask(postgres.start(), "CREATE TABLE kept AS SELECT 1 AS one")
    pid = postmaster_pid(data)
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: not is_running(pid))
    postgres.stop()
    assert await ask(postgres.start(), "SELECT one FROM kept") == 1
    postgres.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a process works")
async def test_a_stale_pid_file_that_names_another_program_does_no_harm(data: Path) -> None:
    postgres = EmbeddedPostgres(data, settings=FAST)
    postgres.start()
    lines = (data / "postmaster.pid").read_text().splitlines()
    postgres.stop()
    with subprocess.Popen(["sleep", "60"], user="nobody" if os.geteuid() == 0 else None) as other:
        (data / "postmaster.pid").write_text("\n".join([str(other.pid), *lines[1:], ""]))
        assert await ask(postgres.start(), "SELECT 1") == 1
        postgres.stop()
        other.kill()


async def test_one_process_owns_it_and_others_can_join(data: Path) -> None:
    postgres = EmbeddedPostgres(data, settings=FAST)
    url = postgres.start()
    other = EmbeddedPostgres(data, settings=FAST)
    with pytest.raises(AlreadyOwned):
        other.start(lock_seconds_max=0)
    assert other.join() == url
    assert not other.stop_abandoned()
    other.stop()
    assert await ask(url, "SELECT 1") == 1
    postgres.stop()


async def test_an_interrupted_creation_is_started_anew(data: Path) -> None:
    half = data.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    postgres = EmbeddedPostgres(data, settings=FAST)
    assert await ask(postgres.start(), "SELECT 1") == 1
    assert not half.exists()
    postgres.stop()


async def test_a_long_path_is_no_obstacle_for_the_socket(data: Path) -> None:
    long = data / ("a" * 60) / ("b" * 60) / "postgres"
    postgres = EmbeddedPostgres(long, settings=FAST)
    url = postgres.start()
    assert await ask(url, "SELECT 1") == 1
    sockets = Path(url.partition("?host=")[2].replace("%2F", "/"))
    assert sockets.is_dir()
    postgres.stop()
    assert not sockets.exists()


def test_what_postgresql_says_is_told(data: Path) -> None:
    postgres = EmbeddedPostgres(data, settings={"shared_buffers": "no size"})
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers"):
        postgres.start()
    EmbeddedPostgres(data, settings=FAST).start(lock_seconds_max=0)


def test_data_of_an_unknown_version_is_left_alone(data: Path) -> None:
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="needs PostgreSQL 9"):
        EmbeddedPostgres(data).start()
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]
