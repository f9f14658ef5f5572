"""Waiting for a condition, in place of sleeping for a guess."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

WAIT_SECONDS_MAX = 15.0


async def wait_until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, seconds_max: float = WAIT_SECONDS_MAX
) -> None:
    """Asks until the condition, a function or a coroutine function, holds.

    Raises:
        TimeoutError: it does not hold in time.
    """
    async with asyncio.timeout(seconds_max):
        while True:
            outcome = condition()
            if await outcome if inspect.isawaitable(outcome) else outcome:
                return
            await asyncio.sleep(0.01)
