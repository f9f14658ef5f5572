"""The real clock, and the only place that asks the system for the time."""

import asyncio
import time

from storage.database import forbid_in_transaction


class SystemClock:
    """Time as the system tells it (`homeserver.core.clock.Clock`)."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits.

        Raises:
            ForbiddenInTransaction: a database transaction is open here.
        """
        forbid_in_transaction("A sleep")
        await asyncio.sleep(seconds)
