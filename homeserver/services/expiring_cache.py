"""A cache with a bound whose values are good for a short time: for what other servers have said."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from homeserver.core.clock import Clock
from storage.bounded_cache import ENTRY_BYTES, BoundedCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Values by key, together never heavier than the bound, none older than its lifetime."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        weight_max: int,
        weigh: Callable[[Value], int] = lambda _: 1,
        bytes_each: int = ENTRY_BYTES,
    ) -> None:
        """Makes an empty cache.

        Args:
            name: labels its metrics.
            clock: the time.
            weight_max: the bound of the sum of weights.
            weigh: the weight of a value, which must stay the same; by default each counts one.
            bytes_each: what a weight of one means in bytes.
        """
        self._clock = clock
        self._kept: BoundedCache[Key, tuple[float, Value]] = BoundedCache(
            name, weight_max=weight_max, weigh=lambda entry: weigh(entry[1]), bytes_each=bytes_each
        )

    def get(self, key: Key) -> Value | None:
        """The value of a key; None if it is not here, or no longer good."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        good_until, value = entry
        if self._clock.monotonic() >= good_until:
            self._kept.discard(key)
            return None
        return value

    def put(self, key: Key, value: Value, *, lifetime_seconds: float) -> None:
        """Keeps a value, at the cost of older ones."""
        self._kept.put(key, (self._clock.monotonic() + lifetime_seconds, value))
