"""Keeps several workers running: identical processes that share the listeners. One that dies is started again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from homeserver.core.clock import Clock

logger = structlog.get_logger()

BACKOFF_SECONDS_MIN: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 30.0
# A worker that has run so long was well; its successor starts without delay.
STEADY_SECONDS: Final = 60.0

StartWorker = Callable[[int], Awaitable[asyncio.subprocess.Process]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Starts workers and owns them.

    Attributes:
        workers: how many.
        start_worker: starts the worker with this number, from 1.
        stopping: called first when the supervisor stops.
        ended: is told the process id of each worker that has ended.
        stop_seconds_max: how long workers may take to stop before they are killed.
        clock: the clock.
    """

    workers: int
    start_worker: StartWorker
    stopping: Callable[[], None]
    ended: Callable[[int], None]
    stop_seconds_max: float
    clock: Clock

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop`; when it returns, no worker is left."""
        running: set[asyncio.subprocess.Process] = set()
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._stop_all(running, stop))
            async with asyncio.TaskGroup() as workers:
                for number in range(1, self.workers + 1):
                    workers.create_task(self._keep_running(number, running, stop))
            stopping.cancel()

    async def _keep_running(self, number: int, running: set[asyncio.subprocess.Process], stop: asyncio.Event) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while not stop.is_set():
            started = self.clock.monotonic()
            status = await self._run_worker(number, running, stop)
            if stop.is_set():
                return
            if self.clock.monotonic() - started >= STEADY_SECONDS:
                backoff_seconds = BACKOFF_SECONDS_MIN
            logger.error("a worker ended", worker=number, status=status, restart_seconds=backoff_seconds)
            await self._pause(backoff_seconds, stop)
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _run_worker(self, number: int, running: set[asyncio.subprocess.Process], stop: asyncio.Event) -> int:
        """Runs one worker to its end, and returns its exit status (negative: the signal that killed it)."""
        process = await self.start_worker(number)
        running.add(process)
        try:
            if stop.is_set():
                _signal(process, signal.SIGTERM)
            return await process.wait()
        finally:
            running.discard(process)
            _signal(process, signal.SIGKILL)
            self.ended(process.pid)

    async def _pause(self, seconds: float, stop: asyncio.Event) -> None:
        """Waits, but not once the server stops."""
        async with asyncio.TaskGroup() as group:
            waits = (group.create_task(self.clock.sleep(seconds)), group.create_task(_wait(stop)))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _stop_all(self, running: set[asyncio.subprocess.Process], stop: asyncio.Event) -> None:
        await stop.wait()
        self.stopping()
        for process in running:
            _signal(process, signal.SIGTERM)
        await self.clock.sleep(self.stop_seconds_max)
        for process in running:
            logger.error("a worker did not stop", pid=process.pid)
            _signal(process, signal.SIGKILL)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Sends a signal, unless the process has ended."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
