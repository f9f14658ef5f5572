"""A server of its own with a PostgreSQL of its own, both in a folder that goes with them, and what they use.

Durability is that of operators: fsync and all other settings are the defaults.
"""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from storage.embedded import EmbeddedPostgres
from storage.migrate import migrate
from tests.processes import free_port

START_SECONDS_MAX: Final = 60
SERVER_NAME: Final = "bench.localhost"
SETTLE_SECONDS: Final = 0.05
"""What a request has set off is over by then."""
IDLE_SECONDS: Final = 1.0
IDLE_LOOKS: Final = 4
REST_LOOK_SECONDS: Final = 0.25
REST_SHARE_MAX: Final = 0.02
"""Of a processor: who uses no more than that above what it uses when idle, is at rest."""
HEALTH_SECONDS: Final = 0.01
"""How often a server that starts is asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run: its folder, and its database, which is migrated and durable."""

    folder: Path
    database_url: str
    postmaster_pid: int

    @property
    def config(self) -> dict[str, Any]:
        """Its settings: no limits, one worker."""
        return {
            "server_name": SERVER_NAME,
            "data_dir": str(self.folder / "data"),
            "database": {"url": self.database_url, "statement_timeout_ms": 120_000, "slow_statement_ms": 0},
            "registration": {"enabled": True, "require_verification": False},
            "rate_limits": {"enabled": False},
            "logging": {"level": "warning", "format": "json"},
        }

    def url_of(self, database: str) -> str:
        """Another database in the same PostgreSQL."""
        return self.database_url.replace("/postgres?", f"/{database}?")


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
    """A server that is healthy: its URL, the processes that work for it, and how long it took to become so."""

    url: str
    pid: int
    postmaster_pid: int
    start_seconds: float

    def cpu_seconds(self) -> "Cpu":
        """What both have used since they started."""
        return Cpu(server=_cpu_seconds(self.pid), database=_cpu_seconds(self.postmaster_pid))

    def resident_mib(self) -> float:
        """The memory that all processes of the server take now, without its database."""
        main = psutil.Process(self.pid)
        return sum(float(one.memory_info().rss) for one in (main, *main.children(recursive=True))) / 2**20


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
async def running_server(where: Place, **settings: Any) -> AsyncIterator[Server]:
    """A server that is healthy, until the block ends.

    Args:
        where: its folder and its database.
        settings: sections of its configuration that are not as for every measurement.
    """
    port = free_port()
    listener = {"port": port, "bind_addresses": ["127.0.0.1"], "resources": ["client", "media", "health"]}
    config = where.folder / "config.yaml"
    config.write_text(json.dumps({**where.config, "listeners": [listener], **settings}))
    started = time.perf_counter()
    with (where.folder / "homeserver.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "homeserver", "run", "-c", str(config)), stdout=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(START_SECONDS_MAX):
            await _healthy(process, url)
        seconds = time.perf_counter() - started
        yield Server(url=url, pid=process.pid, postmaster_pid=where.postmaster_pid, start_seconds=seconds)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _healthy(process: asyncio.subprocess.Process, url: str) -> None:
    """Waits until the server says that it can do its work."""
    async with aiohttp.ClientSession() as http:
        while process.returncode is None:
            with suppress(aiohttp.ClientError, ConnectionError):
                async with http.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(HEALTH_SECONDS)
    raise RuntimeError("The server did not start")


class Meter:
    """Measures what work costs, without what an idle server uses in the same time."""

    def __init__(self, server: Server, *, rest_seconds_max: float = 0.0) -> None:
        """Takes the server, and how long to wait before and after each work until it has come to rest."""
        self._server = server
        self._rest_seconds_max = rest_seconds_max
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
        await self._rest()
        before, started = self._server.cpu_seconds(), loop.time()
        yield result
        await asyncio.sleep(SETTLE_SECONDS)
        await self._rest()
        used = self._server.cpu_seconds() - before
        result.append(used - self._idle_per_second * (loop.time() - started))

    async def _rest(self) -> None:
        """Until the server does about as little as when it is idle, or the time for that is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._rest_seconds_max
        while loop.time() < until:
            before = self._server.cpu_seconds()
            await asyncio.sleep(REST_LOOK_SECONDS)
            used = (self._server.cpu_seconds() - before) * (1 / REST_LOOK_SECONDS)
            if used.total < self._idle_per_second.total + REST_SHARE_MAX:
                break


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
