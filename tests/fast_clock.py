"""A clock on which an hour is a moment."""

import asyncio
import time


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
