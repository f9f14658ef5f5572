"""A cache with a bound, which forgets what was used least recently. It is for what cannot change: nothing expires."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from prometheus_client import Counter, Gauge

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

CACHE_LOOKUPS: Final = Counter("heliograph_cache_lookups", "Lookups in caches.", ["cache", "outcome"])
CACHE_WEIGHT: Final = Gauge("heliograph_cache_weight", "How full a cache is, in what its bound counts.", ["cache"])


class BoundedCache(Generic[Key, Value]):
    """Values by key, together never heavier than the bound."""

    def __init__(self, name: str, *, weight_max: int, weigh: Callable[[Value], int] = lambda _: 1) -> None:
        """Makes an empty cache.

        Args:
            name: labels its metrics.
            weight_max: the bound of the sum of weights.
            weigh: the weight of a value, for example bytes; by default each counts one.
        """
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._weigh = weigh
        self._weight = 0
        self._weight_max = weight_max
        self._hits = CACHE_LOOKUPS.labels(name, "hit")
        self._misses = CACHE_LOOKUPS.labels(name, "miss")
        self._gauge = CACHE_WEIGHT.labels(name)

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is thereby used; None if it is not here."""
        value = self._entries.get(key)
        if value is None:
            self._misses.inc()
            return None
        self._entries.move_to_end(key)
        self._hits.inc()
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, at the cost of older ones. One that is heavier than the whole bound is not kept."""
        self.discard(key)
        self._entries[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._weight_max:
            _, dropped = self._entries.popitem(last=False)
            self._weight -= self._weigh(dropped)
        self._gauge.set(self._weight)

    def discard(self, key: Key) -> None:
        """Forgets a key, if it is here."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._weight -= self._weigh(value)

    def items(self) -> list[tuple[Key, Value]]:
        """All entries, the least recently used first; none counts as used by this."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._weight = 0
        self._gauge.set(0)

    def __contains__(self, key: Key) -> bool:
        """Whether a key is here; it does not count as used by this."""
        return key in self._entries

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)
