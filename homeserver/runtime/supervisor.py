"""Keeps several workers running: identical processes that share the listeners.

One that dies is started again. On request they are all replaced, one after the other: a new one is ready before the one
whose place it takes is told to retire, so nobody who connects is refused.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from homeserver.core.clock import Clock

logger = structlog.get_logger()

BACKOFF_SECONDS_MIN: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 30.0
# A worker that has run so long was well; its successor starts without delay.
STEADY_SECONDS: Final = 60.0
READY_SECONDS_MAX: Final = 60.0

RETIRE_SIGNAL: Final = signal.SIGUSR1
"""What tells a worker that another one has taken its place."""


class Worker(Protocol):
    """A worker process that was started."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait_ready(self) -> bool:
        """Waits until it serves and can do its work; False if it has ended instead."""
        ...

    async def wait(self) -> int:
        """Waits until it has ended; its exit status (negative: the signal that killed it)."""
        ...

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What the supervisor is to keep running.

    Attributes:
        workers: how many.
        start_worker: starts the worker with this number, from 1.
    """

    workers: int
    start_worker: Callable[[int], Awaitable[Worker]]


@dataclass(slots=True)
class _Running:
    """A worker from before its start until all about it is tidied up."""

    number: int
    started_at: float
    worker: Worker | None = None
    status: int = 0
    is_ready: bool = False
    told: asyncio.Event = field(default_factory=asyncio.Event)  # it is ready, or has ended
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def signal(self, number: signal.Signals) -> None:
        if self.worker is not None and not self.ended.is_set():
            with suppress(ProcessLookupError):
                self.worker.send_signal(number)


class Supervisor:
    """Starts workers and owns them."""

    def __init__(
        self,
        *,
        plan: Plan,
        stopping: Callable[[], None],
        ended: Callable[[Worker, int], Awaitable[None]],
        stop_seconds_max: float,
        clock: Clock,
        ready_seconds_max: float = READY_SECONDS_MAX,
    ) -> None:
        """Takes its means.

        Args:
            plan: what to run.
            stopping: called first when the supervisor stops.
            ended: is told each worker that has ended, with its exit status.
            stop_seconds_max: how long workers may take to stop before they are killed.
            clock: the clock.
            ready_seconds_max: how long a successor may take until it can do its work.
        """
        self._plan = plan
        self._stopping = stopping
        self._on_ended = ended
        self._stop_seconds_max = stop_seconds_max
        self._ready_seconds_max = ready_seconds_max
        self._clock = clock
        self._stop = asyncio.Event()
        # Who is in which place; and all processes, also those that retire.
        self._places: dict[int, _Running] = {}
        self._running: list[_Running] = []
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def plan(self) -> Plan:
        """By what plan a worker that dies now is started again."""
        return self._plan

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop`; when it returns, no worker is left."""
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(self._stop_all(stop))
            async with asyncio.TaskGroup() as self._tasks:
                for number in range(1, self._plan.workers + 1):
                    self._open_place(self._tasks, number)
                await self._stop.wait()
            stopping.cancel()

    async def replace_all(self, plan: Plan) -> bool:
        """Replaces the workers one after the other, and goes on by another plan; False if that was given up.

        A successor that does not become ready is ended, and the one whose place it should take stays, as do those that
        are left. `plan` tells whether that was the very first.
        """
        tasks = self._tasks
        if tasks is None or self._stop.is_set():
            return False
        for number in range(1, plan.workers + 1):
            successor = self._start(tasks, number, plan)
            if not await self._becomes_ready(successor):
                return False
            predecessor, self._places[number] = self._places.get(number), successor
            if predecessor is None:
                tasks.create_task(self._keep_running(number))
            # From the first one on: what dies now is started as it is now planned.
            self._plan = plan
            if predecessor is not None:
                await self._retire(predecessor)
        for number in [number for number in self._places if number > plan.workers]:
            await self._retire(self._places.pop(number))
        return True

    async def _becomes_ready(self, successor: _Running) -> bool:
        await self._pause(self._ready_seconds_max, successor.told)
        if successor.is_ready and not self._stop.is_set():
            return True
        if not self._stop.is_set():
            logger.error("a new worker did not become ready: the old ones stay", worker=successor.number)
        successor.signal(signal.SIGTERM)
        await self._pause(self._stop_seconds_max, successor.ended)
        successor.signal(signal.SIGKILL)
        return False

    async def _retire(self, predecessor: _Running) -> None:
        predecessor.signal(RETIRE_SIGNAL)
        await self._pause(self._stop_seconds_max, predecessor.ended)
        if not predecessor.ended.is_set() and not self._stop.is_set():
            logger.error("a worker did not stop", pid=predecessor.worker and predecessor.worker.pid)
            predecessor.signal(signal.SIGKILL)

    def _open_place(self, tasks: asyncio.TaskGroup, number: int) -> None:
        self._places[number] = self._start(tasks, number, self._plan)
        tasks.create_task(self._keep_running(number))

    async def _keep_running(self, number: int) -> None:
        """Starts another worker in a place whenever the one there has died."""
        backoff_seconds = BACKOFF_SECONDS_MIN
        while (running := self._places.get(number)) is not None:
            await running.ended.wait()
            if self._stop.is_set() or self._tasks is None:
                return
            if self._places.get(number) is not running:
                continue  # it was replaced
            if self._clock.monotonic() - running.started_at >= STEADY_SECONDS:
                backoff_seconds = BACKOFF_SECONDS_MIN
            logger.error("a worker ended", worker=number, status=running.status, restart_seconds=backoff_seconds)
            await self._pause(backoff_seconds, self._stop)
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)
            if self._places.get(number) is running and not self._stop.is_set():
                self._places[number] = self._start(self._tasks, number, self._plan)

    def _start(self, tasks: asyncio.TaskGroup, number: int, plan: Plan) -> _Running:
        running = _Running(number, self._clock.monotonic())
        self._running.append(running)
        tasks.create_task(self._run_worker(running, plan))
        return running

    async def _run_worker(self, running: _Running, plan: Plan) -> None:
        """Runs one worker to its end."""
        running.worker = await plan.start_worker(running.number)
        try:
            if self._stop.is_set():
                running.signal(signal.SIGTERM)
            running.is_ready = await running.worker.wait_ready()
            running.told.set()
            running.status = await running.worker.wait()
        finally:
            running.signal(signal.SIGKILL)
            running.ended.set()
            running.told.set()
            self._running.remove(running)
            await self._on_ended(running.worker, running.status)

    async def _pause(self, seconds: float, event: asyncio.Event) -> None:
        """Waits for an event, but not long, and not once the server stops."""
        async with asyncio.TaskGroup() as group:
            waits = (
                group.create_task(self._clock.sleep(seconds)),
                group.create_task(_wait(event)),
                group.create_task(_wait(self._stop)),
            )
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _stop_all(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping()
        self._stop.set()
        for running in self._running:
            running.signal(signal.SIGTERM)
        await self._clock.sleep(self._stop_seconds_max)
        for running in self._running:
            logger.error("a worker did not stop", pid=running.worker and running.worker.pid)
            running.signal(signal.SIGKILL)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
