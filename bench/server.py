"""A server of its own with a PostgreSQL of its own, both in a folder that goes with them, and what they use.

Durability is that of operators: fsync and all other settings are the defaults.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate

START_SECONDS_MAX: Final = 60
SERVER_NAME: Final = "bench.localhost"
SETTLE_SECONDS: Final = 0.05
"""What a request has set off is over by then."""
IDLE_SECONDS: Final = 1.0
IDLE_LOOKS: Final = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run: its folder, and its database, which is migrated and durable."""

    folder: Path
    database_url: str
    postmaster_pid: int

    @property
    def config(self) -> dict[str, Any]:
        """Its settings: no limits, one worker, a free port."""
        return {
            "server_name": SERVER_NAME,
            "data_dir": str(self.folder / "data"),
            "database": {"url": self.database_url, "statement_timeout_ms": 120_000, "slow_statement_ms": 0},
            "listeners": [{"port": 0, "resources": ["client", "media", "health"]}],
            "registration": {"enabled": True, "require_verification": False},
            "rate_limits": {"enabled": False},
            "logging": {"level": "info", "format": "json"},
        }


@contextmanager
def place() -> Iterator[Place]:
    """A folder with a running PostgreSQL; both are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="heliograph-bench-"))
    postgres = EmbeddedPostgres(folder / "postgres")
    try:
        url = postgres.start()
        asyncio.run(migrate(url))
        (folder / "data").mkdir()
        pid = int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
        yield Place(folder=folder, database_url=url, postmaster_pid=pid)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is healthy: its URL, and the processes that work for it."""

    url: str
    pid: int
    postmaster_pid: int

    def cpu_seconds(self) -> "Cpu":
        """What both have used since they started."""
        return Cpu(server=_cpu_seconds(self.pid), database=_cpu_seconds(self.postmaster_pid))

    def resident_mib(self) -> float:
        """The memory that the server takes now, without its database."""
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor time of a server and of its database, in seconds."""

    server: float = 0.0
    database: float = 0.0

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.server - other.server, self.database - other.database)

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.server + other.server, self.database + other.database)

    def __mul__(self, factor: float) -> "Cpu":
        return Cpu(self.server * factor, self.database * factor)

    @property
    def total(self) -> float:
        """Of both."""
        return self.server + self.database


@asynccontextmanager
async def running_server(where: Place) -> AsyncIterator[Server]:
    """A server that is healthy, until the block ends."""
    config = where.folder / "config.yaml"
    config.write_text(json.dumps(where.config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homeserver", "run", "-c", str(config)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            url = await _listening_url(process.stdout)
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(_drain(process.stdout))
            yield Server(url=url, pid=process.pid, postmaster_pid=where.postmaster_pid)
            process.terminate()
            await process.wait()
            drain.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _listening_url(lines: asyncio.StreamReader) -> str:
    async for line in lines:
        event = json.loads(line)
        if event["event"] == "listening":
            return str(event["url"])
    raise RuntimeError("The server did not start")


async def _drain(lines: asyncio.StreamReader) -> None:
    while await lines.read(65536):
        pass


class Meter:
    """Measures what work costs, without what an idle server uses in the same time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle_per_second = Cpu()

    async def calibrate(self) -> None:
        """Finds out what doing nothing costs: the least of a few looks, for the database may still be busy."""
        looks = []
        for _ in range(IDLE_LOOKS):
            before = self._server.cpu_seconds()
            await asyncio.sleep(IDLE_SECONDS)
            looks.append((self._server.cpu_seconds() - before) * (1 / IDLE_SECONDS))
        self._idle_per_second = Cpu(min(look.server for look in looks), min(look.database for look in looks))

    @asynccontextmanager
    async def measure(self) -> AsyncIterator[list[Cpu]]:
        """What happens in the block, and what it sets off; it is in the list when the block has ended."""
        result: list[Cpu] = []
        loop = asyncio.get_running_loop()
        before, started = self._server.cpu_seconds(), loop.time()
        yield result
        await asyncio.sleep(SETTLE_SECONDS)
        used = self._server.cpu_seconds() - before
        result.append(used - self._idle_per_second * (loop.time() - started))


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children, those that have ended too, in seconds."""
    ended = psutil.Process(pid).cpu_times()
    seconds = float(ended.children_user + ended.children_system)
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        seconds += _own_cpu_seconds(process)
    return seconds


def _own_cpu_seconds(process: psutil.Process) -> float:
    """To the nanosecond where the system tells, else to its tick of ten milliseconds."""
    with suppress(OSError, ValueError):
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
