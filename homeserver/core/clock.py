"""What the rest of the house asks of a clock; `runtime/clock.py` holds the real one, tests hold another."""

from typing import Protocol


class Clock(Protocol):
    """Time, as a value that is passed in."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as in `origin_server_ts`."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring spans."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...
