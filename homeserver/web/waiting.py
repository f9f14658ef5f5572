"""Work that is given up as soon as something else happens."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Ended(Exception):
    """What was watched for has happened."""


async def unless_ended(work: Coroutine[Any, Any, T], ended: Callable[[], Awaitable[object]]) -> T | None:
    """Does the work, unless `ended()` returns before it is done: then the work is cancelled, and the outcome is None.

    The work runs in the calling task. Its exceptions come out in an `ExceptionGroup`.
    """
    outcome: T | None = None

    async def watch() -> None:
        await ended()
        raise _Ended

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            outcome = await work
            watching.cancel()
    except* _Ended:
        pass
    return outcome
