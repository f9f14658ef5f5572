"""The supervisor: workers that die are started again, and none is left when it stops."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeserver.runtime.clock import SystemClock
from homeserver.runtime.supervisor import BACKOFF_SECONDS_MAX, Plan, Supervisor, Worker
from tests.waiting import wait_until

OBEDIENT = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = """
import signal
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
NEVER_READY = "import signal; signal.pause()"


class QuickClock(SystemClock):
    """A clock whose sleeps last no time, and are remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Remembers how long it should have been."""
        self.slept.append(seconds)
        await asyncio.sleep(0)


class FakeWorker:
    """A process that says on its standard output when it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, number: int) -> None:
        self.process = process
        self.number = number

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait_ready(self) -> bool:
        assert self.process.stdout is not None
        return await self.process.stdout.readline() == b"ready\n"

    async def wait(self) -> int:
        return await self.process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None


class Fleet:
    """Workers that were started, and what has become of them, in order."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.started: list[FakeWorker] = []
        self.ended: list[int] = []
        self.running_max = 0

    async def start(self, number: int) -> FakeWorker:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", self._program, stdout=asyncio.subprocess.PIPE
        )
        worker = FakeWorker(process, number)
        self.started.append(worker)
        self.running_max = max(self.running_max, len(self.running()))
        return worker

    async def note_end(self, worker: Worker, status: int) -> None:
        self.ended.append(worker.pid)

    def running(self) -> list[FakeWorker]:
        return [worker for worker in self.started if worker.is_running]


@dataclass
class Supervised:
    """A supervisor that runs."""

    supervisor: Supervisor
    stop: asyncio.Event


@asynccontextmanager
async def supervised(
    fleet: Fleet,
    *,
    workers: int,
    clock: SystemClock,
    stop_seconds_max: float = 10,
    ready_seconds_max: float = 10,
    stopping: Callable[[], None] = lambda: None,
) -> AsyncIterator[Supervised]:
    stop = asyncio.Event()
    supervisor = Supervisor(
        plan=Plan(workers, fleet.start),
        stopping=stopping,
        ended=fleet.note_end,
        stop_seconds_max=stop_seconds_max,
        ready_seconds_max=ready_seconds_max,
        clock=clock,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run(stop))
        try:
            yield Supervised(supervisor, stop)
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
        assert fleet.started[2].number == victim.number


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
        await wait_until(lambda: ignores_sigterm(fleet.started[0].pid))
    assert fleet.started[0].process.returncode == -signal.SIGKILL


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


def ignores_sigterm(pid: int) -> bool:
    """Whether a process has come so far that it ignores SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = int(next(line.split()[1] for line in lines if line.startswith("SigIgn:")), 16)
    return bool(ignored & 1 << (signal.SIGTERM - 1))


async def test_all_are_replaced_one_after_the_other() -> None:
    fleet, successors = Fleet(OBEDIENT), Fleet(OBEDIENT)
    async with supervised(fleet, workers=3, clock=SystemClock()) as running:
        await wait_until(lambda: len(fleet.running()) == 3)
        least = 3

        async def start(number: int) -> FakeWorker:
            nonlocal least
            least = min(least, len(fleet.running()) + len(successors.running()))
            return await successors.start(number)

        assert await running.supervisor.replace_all(Plan(3, start))
        assert [worker.number for worker in successors.running()] == [1, 2, 3]
        assert not fleet.running()
        assert least == 3, "there were fewer workers meanwhile"
        assert {worker.process.returncode for worker in fleet.started} == {-signal.SIGUSR1}
        victim = successors.started[1]
        os.kill(victim.pid, signal.SIGKILL)
        await wait_until(lambda: len(successors.started) == 4)
        assert successors.started[3].number == victim.number, "what dies later is started by the new plan"
    assert not successors.running()


async def test_there_may_be_more_or_fewer_afterwards() -> None:
    fleet = Fleet(OBEDIENT)
    async with supervised(fleet, workers=2, clock=SystemClock()) as running:
        await wait_until(lambda: len(fleet.running()) == 2)
        for count in (3, 1, 2):
            assert await running.supervisor.replace_all(Plan(count, fleet.start))
            assert sorted(worker.number for worker in fleet.running()) == list(range(1, count + 1))
        victim = fleet.running()[1]
        victim.process.kill()
        await wait_until(lambda: len(fleet.running()) == 2 and victim not in fleet.running())
        assert sorted(worker.number for worker in fleet.running()) == [1, 2]
    assert not fleet.running()


@pytest.mark.parametrize("program", [NEVER_READY, "raise SystemExit(1)"], ids=["never-ready", "ends"])
async def test_successors_that_do_not_become_ready_leave_all_as_it_was(program: str) -> None:
    fleet, successors = Fleet(OBEDIENT), Fleet(program)
    async with supervised(fleet, workers=2, clock=SystemClock(), ready_seconds_max=0.5) as running:
        await wait_until(lambda: len(fleet.running()) == 2)
        plan = running.supervisor.plan
        assert not await running.supervisor.replace_all(Plan(2, successors.start))
        assert running.supervisor.plan is plan
        assert len(fleet.running()) == 2
        assert len(successors.started) == 1
        assert not successors.running()
        os.kill(fleet.started[0].pid, signal.SIGKILL)
        await wait_until(lambda: len(fleet.running()) == 2)
    assert not fleet.running()


async def test_who_does_not_retire_is_killed() -> None:
    fleet, successors = Fleet(STUBBORN), Fleet(OBEDIENT)
    async with supervised(fleet, workers=1, clock=SystemClock(), stop_seconds_max=0.2) as running:
        await wait_until(lambda: len(fleet.running()) == 1)
        await wait_until(lambda: ignores_sigterm(fleet.started[0].pid))
        assert await running.supervisor.replace_all(Plan(1, successors.start))
        await wait_until(lambda: not fleet.running())
        assert fleet.started[0].process.returncode == -signal.SIGKILL
        assert len(successors.running()) == 1


async def test_a_stop_ends_a_replacement() -> None:
    fleet, successors = Fleet(OBEDIENT), Fleet(NEVER_READY)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with supervised(fleet, workers=2, clock=SystemClock(), ready_seconds_max=60) as running:
            await wait_until(lambda: len(fleet.running()) == 2)
            replacing = group.create_task(running.supervisor.replace_all(Plan(2, successors.start)))
            await wait_until(lambda: len(successors.running()) == 1)
            running.stop.set()
        assert not await replacing
    assert not fleet.running()
    assert not successors.running()
