"""Rates in bytes: what somebody brings or has fetched flows into a bucket that leaks at the rate.

What is let in is not known before it is there, so a bucket may overflow once; then its owner waits until it has leaked.
"""

import math
from collections import OrderedDict
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.errors import LimitExceeded

BUCKETS_MAX: Final = 100_000


class ByteRates:
    """Buckets of this process, by owner; those that have not been used for longest are forgotten first."""

    def __init__(self, *, bytes_per_second: int, burst_bytes: int, overflow_bytes: int, clock: Clock) -> None:
        """Takes its settings.

        Args:
            bytes_per_second: the rate in the long run.
            burst_bytes: how much may come at once after a pause.
            overflow_bytes: how much may come beyond that, of what had begun before.
            clock: the time.
        """
        self._bytes_per_second = bytes_per_second
        self._burst_bytes = burst_bytes
        self._overflow_bytes = overflow_bytes
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, owner: str) -> None:
        """Checks that an owner may begin something.

        Raises:
            LimitExceeded: too much has come of late.
        """
        excess = self._level(owner) - self._burst_bytes
        if excess >= 0:
            raise self._exceeded(excess)

    def add(self, owner: str, size_bytes: int) -> None:
        """Counts what has come.

        Raises:
            LimitExceeded: too much comes at the same time.
        """
        level = self._level(owner) + size_bytes
        self._levels[owner] = (level, self._clock.monotonic())
        self._levels.move_to_end(owner)
        while len(self._levels) > BUCKETS_MAX:
            self._levels.popitem(last=False)
        excess = level - self._burst_bytes
        if excess > self._overflow_bytes:
            raise self._exceeded(excess)

    def _exceeded(self, excess: float) -> LimitExceeded:
        wait_ms = math.ceil((excess + 1) * 1000 / self._bytes_per_second)
        return LimitExceeded("Too much data", retry_after_ms=wait_ms)

    def _level(self, owner: str) -> float:
        level, since = self._levels.get(owner, (0.0, 0.0))
        return max(0.0, level - (self._clock.monotonic() - since) * self._bytes_per_second)
