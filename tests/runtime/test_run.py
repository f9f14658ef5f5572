"""`homeserver run` as operators know it: a process that becomes healthy, serves, and stops on SIGTERM."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import wait_until

CONFIG = {
    "server_name": "example.org",
    "listeners": [{"port": 0, "resources": ["client", "metrics", "health"]}],
    "rate_limits": {"enabled": False},
}


class Server:
    """A server process and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return str(next(line["url"] for line in self.lines if line["event"] == "listening"))

    async def collect(self) -> None:
        """Reads the log to its end."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of an event."""
        return [line for line in self.lines if line["event"] == name]


@asynccontextmanager
async def server(folder: Path, **settings: Any) -> AsyncIterator[Server]:
    """Runs a server until the block ends, from the moment it is healthy."""
    (folder / "config.yaml").write_text(json.dumps(CONFIG | settings))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homeserver", "run", "-c", str(folder / "config.yaml")),
        stdout=asyncio.subprocess.PIPE,
        # What a killed server leaves in the folder for temporary files goes with the test's own folder.
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)},
    )
    found = Server(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(found.collect())
        try:
            await wait_until(lambda: bool(found.events("listening")) or process.returncode is not None, seconds_max=50)
            assert found.events("listening"), "the server ended; its standard error says why"
            await wait_until(lambda: is_healthy(found.url))
            yield found
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)


async def is_healthy(url: str) -> bool:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(f"{url}/health") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


async def test_it_serves_and_stops_on_sigterm(database_url: str, folder: Path) -> None:
    async with server(folder, database={"url": database_url}) as running:
        url = running.url
    assert running.process.returncode == 0
    assert [line["event"] for line in running.lines][-2:] == ["stopping", "stopped"]
    assert not await is_healthy(url)


async def test_with_an_embedded_database_it_needs_nothing_else(folder: Path) -> None:
    data = folder / "data"
    async with server(folder):
        assert (data / "postgres" / "postmaster.pid").exists()
        words = ("user", "create", "alice", "--password", "a password", "-c", str(folder / "config.yaml"))
        assert await outcome(*words) == (0, "@alice:example.org\n")
    assert not (data / "postgres" / "postmaster.pid").exists()


async def test_it_starts_again_after_it_was_killed(folder: Path) -> None:
    async with server(folder) as killed:
        killed.process.kill()
        await killed.process.wait()
    assert (folder / "data" / "postgres" / "postmaster.pid").exists()
    async with server(folder) as again:
        assert not again.events("migrated")
    assert not (folder / "data" / "postgres" / "postmaster.pid").exists()


async def test_several_workers_share_the_port_and_are_replaced(database_url: str, folder: Path) -> None:
    settings = {"workers": 2, "redis": {"url": "redis://127.0.0.1:1/0"}, "database": {"url": database_url}}
    async with server(folder, **settings) as running:
        await wait_until(lambda: len(running.events("listening")) == 2)
        pids = children(running.process.pid)
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        await wait_until(lambda: bool(running.events("a worker ended")))
        assert await is_healthy(running.url)
        await wait_until(lambda: len(running.events("listening")) == 3)
        async with aiohttp.ClientSession() as http, http.get(f"{running.url}/metrics") as response:
            assert "heliograph_requests_total" in await response.text()
    assert running.process.returncode == 0
    assert not await is_healthy(running.url)


async def test_workers_end_with_their_supervisor(database_url: str, folder: Path) -> None:
    settings = {"workers": 2, "redis": {"url": "redis://127.0.0.1:1/0"}, "database": {"url": database_url}}
    async with server(folder, **settings) as running:
        await wait_until(lambda: len(running.events("listening")) == 2)
        pids = children(running.process.pid)
        running.process.kill()
        await running.process.wait()
        await wait_until(lambda: not any(is_running(pid) for pid in pids))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def outcome(*words: str) -> tuple[int | None, str]:
    """A run that cannot start: its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homeserver", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, output.decode()


async def test_a_second_server_on_the_same_data_is_refused(folder: Path) -> None:
    async with server(folder):
        code, output = await outcome("run", "-c", str(folder / "config.yaml"))
        assert code == 1
        assert "Another homeserver uses the database" in output


async def test_a_port_that_is_taken_is_told(database_url: str, folder: Path) -> None:
    async with server(folder, database={"url": database_url}) as running:
        port = int(running.url.rpartition(":")[2])
        settings = {"listeners": [{"port": port}], "database": {"url": database_url}}
        (folder / "other.yaml").write_text(json.dumps(CONFIG | settings))
        code, output = await outcome("run", "-c", str(folder / "other.yaml"))
        assert code == 1
        assert f"Cannot listen on 127.0.0.1 port {port}" in output
