"""Runs what changes something to its end, even if the client that asked for it goes away."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog

from homeserver.core.errors import UnavailableForNow

T = TypeVar("T")

_log = structlog.get_logger()

WRITES_MAX: Final = 10_000


class WriteTasks:
    """The owner of all running writes of a server process: an async context manager that waits for them at its end."""

    def __init__(self, *, shutdown_seconds: float = 20.0, writes_max: int = WRITES_MAX) -> None:
        """Prepares it.

        Args:
            shutdown_seconds: how long the end waits before what still runs is cancelled.
            writes_max: how many writes may run at once.
        """
        self._shutdown_seconds = shutdown_seconds
        self._writes_max = writes_max
        self._running = 0
        self._open = False
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        try:
            async with asyncio.timeout(self._shutdown_seconds):
                await self._tasks.__aexit__(None, None, None)
        except TimeoutError:
            _log.warning("writes were cancelled at shutdown", running=self._running)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs the work in a task of its own and hands over its outcome; if the waiting is cancelled, it runs on.

        Raises:
            UnavailableForNow: the server is stopping, or too many writes are running.
        """
        if not self._open or self._running >= self._writes_max:
            work.close()
            raise UnavailableForNow("The server takes no more writes at this moment")
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._running += 1
        task = self._tasks.create_task(self._complete(work, outcome))
        task.add_done_callback(lambda _: self._ended(outcome))
        return await outcome

    def _ended(self, outcome: "asyncio.Future[T]") -> None:
        """Whatever way a task ended, even cancelled before its first step: nobody is left waiting."""
        self._running -= 1
        if not outcome.done():
            outcome.cancel()

    async def _complete(self, work: Coroutine[Any, Any, T], outcome: asyncio.Future[T]) -> None:
        try:
            result = await work
        except Exception as error:  # noqa: BLE001 - one write's failure is its caller's, never its siblings'
            if outcome.cancelled():
                _log.error("a write failed after its client had gone", exc_info=error)
            else:
                outcome.set_exception(error)
        else:
            if not outcome.cancelled():
                outcome.set_result(result)
