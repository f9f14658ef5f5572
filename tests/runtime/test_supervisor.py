"""The supervisor: workers that die are started again, and none is left when it stops."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from homeserver.runtime.clock import SystemClock
from homeserver.runtime.supervisor import BACKOFF_SECONDS_MAX, Supervisor
from tests.waiting import wait_until

OBEDIENT = "import signal; signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


class QuickClock(SystemClock):
    """A clock whose sleeps last no time, and are remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Remembers how long it should have been."""
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Fleet:
    """Workers that were started, and those that have ended."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.started: list[asyncio.subprocess.Process] = []
        self.numbers: list[int] = []
        self.ended: list[int] = []

    async def start(self, number: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", self._program, stdout=asyncio.subprocess.PIPE
        )
        self.started.append(process)
        self.numbers.append(number)
        return process

    def running(self) -> list[asyncio.subprocess.Process]:
        return [process for process in self.started if process.returncode is None]


@asynccontextmanager
async def supervised(
    fleet: Fleet, *, workers: int, clock: SystemClock, stop_seconds_max: float = 10, stopping: Callable[[], None] = int
) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    supervisor = Supervisor(
        workers=workers,
        start_worker=fleet.start,
        stopping=stopping,
        ended=fleet.ended.append,
        stop_seconds_max=stop_seconds_max,
        clock=clock,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run(stop))
        try:
            yield stop
        finally:
            stop.set()


async def test_a_worker_that_dies_is_started_again() -> None:
    fleet = Fleet(OBEDIENT)
    async with supervised(fleet, workers=2, clock=QuickClock()):
        await wait_until(lambda: len(fleet.running()) == 2)
        victim = fleet.started[0]
        os.kill(victim.pid, signal.SIGKILL)
        await wait_until(lambda: len(fleet.started) == 3 and len(fleet.running()) == 2)
        assert fleet.ended == [victim.pid]
        assert fleet.numbers[2] == fleet.numbers[0]


async def test_all_workers_have_stopped_when_it_returns() -> None:
    fleet, told = Fleet(OBEDIENT), []
    async with supervised(fleet, workers=3, clock=SystemClock(), stopping=lambda: told.append(len(fleet.running()))):
        await wait_until(lambda: len(fleet.running()) == 3)
    assert told == [3]
    assert not fleet.running()
    assert len(fleet.started) == len(fleet.ended) == 3


async def test_a_worker_that_does_not_stop_is_killed() -> None:
    fleet = Fleet(STUBBORN)
    async with supervised(fleet, workers=1, clock=SystemClock(), stop_seconds_max=0.05):
        await wait_until(lambda: len(fleet.running()) == 1)
        output = fleet.started[0].stdout
        assert output is not None
        await output.readline()
    assert fleet.started[0].returncode == -signal.SIGKILL


async def test_workers_that_die_at_once_are_started_ever_more_slowly() -> None:
    fleet, clock = Fleet("raise SystemExit(1)"), QuickClock()
    async with supervised(fleet, workers=1, clock=clock):
        await wait_until(lambda: len(clock.slept) >= 9)
    assert clock.slept[:3] == [0.5, 1.0, 2.0]
    assert max(clock.slept) == BACKOFF_SECONDS_MAX


async def test_a_stop_does_not_wait_for_the_next_start() -> None:
    fleet = Fleet("raise SystemExit(1)")
    clock = QuickClock()
    clock.sleep = SystemClock().sleep  # type: ignore[method-assign]
    async with asyncio.timeout(10), supervised(fleet, workers=1, clock=clock):
        await wait_until(lambda: len(fleet.ended) == 3)
    assert not fleet.running()
