"""A clock on which an hour is a moment, and a way to wait for a condition."""

import asyncio
import time
from collections.abc import Awaitable, Callable

CONDITION_SECONDS_MAX = 10.0


class FastClock:
    """Real time, sped up; `advance` moves it further."""

    def __init__(self, speed: float = 20.0) -> None:
        self._speed = speed
        self._started = time.monotonic()
        self._ahead_seconds = 0.0

    def now_ms(self) -> int:
        """Milliseconds, beginning somewhere in 2023."""
        return 1_700_000_000_000 + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        """Seconds since the clock was made, as it counts them."""
        return (time.monotonic() - self._started) * self._speed + self._ahead_seconds

    async def sleep(self, seconds: float) -> None:
        """Waits a fraction of the time."""
        await asyncio.sleep(seconds / self._speed)

    def advance(self, seconds: float) -> None:
        """Lets time pass at once; who sleeps goes on sleeping."""
        self._ahead_seconds += seconds


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a condition holds, up to a limit.

    Raises:
        TimeoutError: it does not come to hold.
    """
    async with asyncio.timeout(CONDITION_SECONDS_MAX):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
