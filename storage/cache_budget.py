"""The memory that all caches of a process share, in bytes, and what is told of them.

Each cache has a bound of its own. When all together outgrow the budget, the one that holds most forgets what it used
least recently, until they fit: so none starves another, and what one does not need the others may have. Sizes are the
caches' own estimates of what their entries take.
"""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final, Protocol
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import Counter, Gauge

LOOKUPS: Final = Counter("heliograph_cache_lookups", "Lookups in caches.", ["cache", "outcome"])
EVICTIONS: Final = Counter("heliograph_cache_evictions", "Entries forgotten to stay within bounds.", ["cache"])
BYTES: Final = Gauge("heliograph_cache_bytes", "What a cache holds, estimated.", ["cache"], multiprocess_mode="livesum")
ENTRIES: Final = Gauge("heliograph_cache_entries", "Entries of a cache.", ["cache"], multiprocess_mode="livesum")
BUDGET_BYTES: Final = Gauge(
    "heliograph_cache_budget_bytes", "What all caches may hold together.", multiprocess_mode="livesum"
)

DEFAULT_BYTES_MAX: Final = 48 * 1024 * 1024
# More than is needed goes at a time, so that the search for the largest is seldom.
_KEPT_SHARE: Final = 31 / 32


class BudgetedCache(Protocol):
    """What a budget asks of a cache.

    Attributes:
        name: labels its metrics; several caches may have the same.
        hits: lookups since it was made that found something.
        misses: lookups that found nothing.
        evictions: entries that had to go.
    """

    name: str
    hits: int
    misses: int
    evictions: int

    @property
    def size_bytes(self) -> int:
        """What its entries take, estimated."""
        ...

    def evict_oldest(self) -> None:
        """Forgets the entry that was used least recently; there is one."""
        ...

    def __len__(self) -> int: ...

    def __hash__(self) -> int: ...


class CacheBudget:
    """Keeps the caches that have joined together within a number of bytes."""

    def __init__(self, bytes_max: int = DEFAULT_BYTES_MAX) -> None:
        """Takes the bound."""
        self._bytes_max = bytes_max
        # Never less than what the caches hold. More, if one has gone meanwhile; then it is counted anew in time.
        self._used_bytes = 0
        self._caches: WeakSet[BudgetedCache] = WeakSet()
        self._told: WeakKeyDictionary[BudgetedCache, tuple[int, int, int]] = WeakKeyDictionary()

    @property
    def bytes_max(self) -> int:
        """The bound."""
        return self._bytes_max

    def set_bytes_max(self, bytes_max: int) -> None:
        """Changes the bound; what is too much goes at once."""
        self._bytes_max = bytes_max
        self.add(0)

    def join(self, cache: BudgetedCache) -> None:
        """Counts a cache from now on, as long as it lives."""
        self._caches.add(cache)

    def add(self, size_bytes: int) -> None:
        """Counts what a cache has just taken in; what it has given up is negative."""
        self._used_bytes += size_bytes
        if self._used_bytes > self._bytes_max:
            self._shrink()

    def _shrink(self) -> None:
        caches = list(self._caches)
        self._used_bytes = sum(cache.size_bytes for cache in caches)
        if self._used_bytes <= self._bytes_max:
            return
        target_bytes = int(self._bytes_max * _KEPT_SHARE)
        level_bytes = _level([cache.size_bytes for cache in caches], target_bytes)
        for cache in sorted(caches, key=lambda cache: cache.size_bytes, reverse=True):
            while cache.size_bytes > level_bytes and self._used_bytes > target_bytes:
                self._used_bytes -= cache.size_bytes
                cache.evict_oldest()
                self._used_bytes += cache.size_bytes

    def publish(self) -> None:
        """Brings the metrics up to date. The caches themselves only count: they are asked very often."""
        size_bytes: Tally[str] = Tally()
        entries: Tally[str] = Tally()
        for cache in list(self._caches):
            size_bytes[cache.name] += cache.size_bytes
            entries[cache.name] += len(cache)
            hits, misses, evictions = self._told.get(cache, (0, 0, 0))
            LOOKUPS.labels(cache.name, "hit").inc(cache.hits - hits)
            LOOKUPS.labels(cache.name, "miss").inc(cache.misses - misses)
            EVICTIONS.labels(cache.name).inc(cache.evictions - evictions)
            self._told[cache] = (cache.hits, cache.misses, cache.evictions)
        for name in size_bytes:
            BYTES.labels(name).set(size_bytes[name])
            ENTRIES.labels(name).set(entries[name])
        BUDGET_BYTES.set(self._bytes_max)


def _level(sizes: Iterable[int], total: int) -> int:
    """The size to which the largest must be cut so that all together are no more than a total."""
    left = sorted(sizes)
    for index, size in enumerate(left):
        level = total // (len(left) - index)
        if size > level:
            return level
        total -= size
    return left[-1] if left else 0


PROCESS_BUDGET: Final = CacheBudget()
"""That of this process, for memory is the process's, whatever is composed in it."""
