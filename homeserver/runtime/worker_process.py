"""A worker process and the pipe by which it reports to the supervisor: whose leases it takes, and that it is ready."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READY: Final = b"ready\n"
_HOLDER: Final = b"holder "


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMeans:
    """What every worker of one plan is started with.

    Attributes:
        config_file: the configuration, from whose folder relative paths start.
        config_text: what it says; the file may change meanwhile.
        environment: the settings over it.
        sockets: the listeners, as `listeners.descriptors` wrote them.
        inherited: the descriptors that it needs, among them those of the listeners.
        lifeline: a pipe that ends with the supervisor.
    """

    config_file: Path
    config_text: str
    environment: Mapping[str, str]
    sockets: str
    inherited: Sequence[int]
    lifeline: int


class WorkerProcess:
    """A worker as the supervisor sees it (`supervisor.Worker`)."""

    def __init__(self, process: asyncio.subprocess.Process, reports: asyncio.StreamReader) -> None:
        self._process = process
        self._reports = reports
        self.lease_holder: str | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait_ready(self) -> bool:
        """Waits until it serves and can do its work; False if it has ended instead."""
        while line := await self._reports.readline():
            if line == READY:
                return True
            if line.startswith(_HOLDER):
                self.lease_holder = line.removeprefix(_HOLDER).decode().strip()
        return False

    async def wait(self) -> int:
        """Waits until it has ended; its exit status (negative: the signal that killed it)."""
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._process.send_signal(number)


async def start_worker(number: int, means: WorkerMeans) -> WorkerProcess:
    """Starts the worker with this number."""
    reading, writing = os.pipe()
    reports = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reports), os.fdopen(reading, "rb"))
    options = {
        "--number": number,
        "--sockets": means.sockets,
        "--lifeline": means.lifeline,
        "--reports": writing,
    }
    words = [str(word) for option in options.items() for word in option]
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "homeserver", "run-worker", "--config", str(means.config_file), *words),
            env=means.environment,
            pass_fds=(*means.inherited, means.lifeline, writing),
            stdin=asyncio.subprocess.PIPE,
        )
    finally:
        os.close(writing)
    assert process.stdin is not None
    process.stdin.write(means.config_text.encode())
    process.stdin.close()
    return WorkerProcess(process, reports)


class Reports:
    """The worker's end of the pipe."""

    def __init__(self, descriptor: int, *, lease_holder: str) -> None:
        """Takes the pipe, and reports under which name this process holds leases."""
        self._descriptor = descriptor
        self._write(_HOLDER + lease_holder.encode() + b"\n")

    def ready(self) -> None:
        """Reports that the worker serves and can do its work."""
        self._write(READY)

    def _write(self, line: bytes) -> None:
        try:
            os.write(self._descriptor, line)
        except BrokenPipeError:
            return  # the supervisor has gone, which the lifeline tells
