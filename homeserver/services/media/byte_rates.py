"""Rates in bytes: what somebody brings or has fetched flows into a bucket that leaks at the rate.

What is let in is not known before it is there, so a bucket may overflow once; then its owner waits until it has leaked.
"""

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.errors import LimitExceeded

BUCKETS_MAX: Final = 100_000
COUNTED_BYTES: Final = 1024 * 1024
"""How much of a file comes before it is counted: the buckets may be elsewhere."""

Count = Callable[[int], Awaitable[None]]
"""To be told of every piece's size."""


class ByteBuckets(Protocol):
    """Where buckets are kept."""

    async def add(self, owner: str, size_bytes: int, *, bytes_per_second: int) -> float:
        """Adds to the bucket of an owner, perhaps nothing; returns the bytes that are in it then."""
        ...


class LocalByteBuckets:
    """Buckets of this process; those that have not been used for longest are forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def add(self, owner: str, size_bytes: int, *, bytes_per_second: int) -> float:
        """Adds to a bucket; see `ByteBuckets`."""
        now = self._clock.monotonic()
        level, since = self._levels.get(owner, (0.0, now))
        level = max(0.0, level - (now - since) * bytes_per_second) + size_bytes
        if level:
            self._levels[owner] = (level, now)
            self._levels.move_to_end(owner)
            while len(self._levels) > BUCKETS_MAX:
                self._levels.popitem(last=False)
        return level


class ByteRates:
    """One kind of rate."""

    def __init__(
        self, *, buckets: ByteBuckets, name: str, bytes_per_second: int, burst_bytes: int, overflow_bytes: int
    ) -> None:
        """Takes its settings.

        Args:
            buckets: where the buckets are, perhaps those of other kinds too.
            name: of the kind, which tells its buckets from others.
            bytes_per_second: the rate in the long run.
            burst_bytes: how much may come at once after a pause.
            overflow_bytes: how much may come beyond that, of what had begun before.
        """
        self._buckets = buckets
        self._name = name
        self._bytes_per_second = bytes_per_second
        self._burst_bytes = burst_bytes
        self._overflow_bytes = overflow_bytes

    @asynccontextmanager
    async def counting(self, owner: str) -> AsyncIterator[Count]:
        """Checks that an owner may begin something, and counts what comes of it; inside, `LimitExceeded` may rise.

        Raises:
            LimitExceeded: too much has come of late.
        """
        await self._add(owner, 0, bytes_max=self._burst_bytes)
        uncounted_bytes = 0

        async def count(size_bytes: int) -> None:
            nonlocal uncounted_bytes
            uncounted_bytes += size_bytes
            if uncounted_bytes >= COUNTED_BYTES:
                counted_bytes, uncounted_bytes = uncounted_bytes, 0
                await self._add(owner, counted_bytes, bytes_max=self._burst_bytes + self._overflow_bytes + 1)

        try:
            yield count
        finally:
            if uncounted_bytes:
                await self._buckets.add(self._key(owner), uncounted_bytes, bytes_per_second=self._bytes_per_second)

    async def _add(self, owner: str, size_bytes: int, *, bytes_max: int) -> None:
        """Adds to an owner's bucket.

        Raises:
            LimitExceeded: so much, or more, is in it then.
        """
        level = await self._buckets.add(self._key(owner), size_bytes, bytes_per_second=self._bytes_per_second)
        if level >= bytes_max:
            wait_ms = math.ceil((level - self._burst_bytes + 1) * 1000 / self._bytes_per_second)
            raise LimitExceeded("Too much data", retry_after_ms=wait_ms)

    def _key(self, owner: str) -> str:
        return f"{self._name} {owner}"
