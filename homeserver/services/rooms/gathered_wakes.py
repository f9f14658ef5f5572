"""Wakes for what comes of one piece of work, given out together.

Events of a fork are written one by one, but those who listen need not look after each of them: they are told at the
end, and every now and then while it lasts.
"""

from collections.abc import Collection
from typing import Final

from homeserver.core.clock import Clock
from storage.bus.base import Bus

_SECONDS_MAX: Final = 0.2


class GatheredWakes:
    """Collects wakes. What waits for too long, as other servers have to be asked, is made up for by the hub's tick."""

    def __init__(self, *, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._keys: set[str] = set()
        self._position = 0
        self._since = 0.0

    async def wake(self, keys: Collection[str], position: int) -> None:
        """Adds a wake, after the commit. If the first that waits is old, all are given out."""
        if not self._keys:
            self._since = self._clock.monotonic()
        self._keys.update(keys)
        self._position = max(self._position, position)
        if self._clock.monotonic() >= self._since + _SECONDS_MAX:
            await self.give_out()

    async def give_out(self) -> None:
        """Gives out what waits."""
        if self._keys:
            keys, self._keys = self._keys, set()
            await self._bus.wake(keys, self._position)
