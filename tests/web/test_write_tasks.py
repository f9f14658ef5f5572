"""Writes run to their end, whoever waits for them."""

import asyncio

import pytest
import structlog

from homeserver.core.errors import UnavailableForNow
from homeserver.web.write_tasks import WriteTasks


class Work:
    """A piece of work that can be seen running, and is let go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._error = error

    async def run(self) -> str:
        """Waits until it may go on."""
        self.started.set()
        await self.go_on.wait()
        self.ended.set()
        if self._error is not None:
            raise self._error
        return "done"


async def test_outcomes_are_handed_over() -> None:
    async with WriteTasks() as writes:
        work = Work()
        work.go_on.set()
        assert await writes.run(work.run()) == "done"
        failing = Work(ValueError("no"))
        failing.go_on.set()
        with pytest.raises(ValueError, match="no"):
            await writes.run(failing.run())


async def abandoned(writes: WriteTasks, work: Work) -> None:
    """Starts the work and stops waiting for it."""
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(writes.run(work.run()))
        await work.started.wait()
        waiting.cancel()


async def test_nobody_need_wait() -> None:
    work = Work()
    async with WriteTasks() as writes:
        await abandoned(writes, work)
        assert not work.ended.is_set()
        work.go_on.set()
        await work.ended.wait()


async def test_the_end_waits_for_what_runs() -> None:
    work = Work()
    async with WriteTasks() as writes:
        await abandoned(writes, work)
        asyncio.get_running_loop().call_later(0.05, work.go_on.set)
    assert work.ended.is_set()


async def test_the_end_does_not_wait_for_ever() -> None:
    work = Work()
    with structlog.testing.capture_logs() as lines:
        async with WriteTasks(shutdown_seconds=0.05) as writes:
            await abandoned(writes, work)
    assert not work.ended.is_set()
    assert [line["event"] for line in lines] == ["writes were cancelled at shutdown"]


async def test_one_failure_leaves_the_others_alone() -> None:
    failing, other = Work(ValueError("no")), Work()
    with structlog.testing.capture_logs() as lines:
        async with WriteTasks() as writes:
            await abandoned(writes, failing)
            await abandoned(writes, other)
            failing.go_on.set()
            await failing.ended.wait()
            other.go_on.set()
            await other.ended.wait()
    assert [line["event"] for line in lines] == ["a write failed after its client had gone"]


async def test_too_many_writes_are_refused() -> None:
    work, one_more = Work(), Work()
    async with WriteTasks(writes_max=1) as writes:
        await abandoned(writes, work)
        with pytest.raises(UnavailableForNow):
            await writes.run(one_more.run())
        work.go_on.set()
    with pytest.raises(UnavailableForNow):
        await writes.run(one_more.run())
    assert not one_more.started.is_set()
