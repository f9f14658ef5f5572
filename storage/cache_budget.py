"""The memory that all caches of a process share, in bytes, and what is told of them.

Each cache has a bound of its own. When all together outgrow the budget, the one that holds most forgets what it used
least recently, until they fit: so none starves another, and what one does not need the others may have. Sizes are the
caches' own estimates of what their entries take.
"""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final, Protocol
from weakref import WeakSet

from prometheus_client import Counter, Gauge

LOOKUPS: Final = Counter("heliograph_cache_lookups", "Lookups in caches.", ["cache", "outcome"])
EVICTIONS: Final = Counter("heliograph_cache_evictions", "Entries that were forgotten to stay within bounds.", ["cache"])
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
        size_bytes: what its entries take.
        hits: lookups since it was made that found something.
        misses: lookups that found nothing.
        evictions: entries that had to go.
    """

    name: str
    size_bytes: int
    hits: int
    misses: int
    evictions: int

    def evict_oldest(self) -> None:
        """Forgets the entry that was used least recently; there is one."""
        ...

    def __len__(self) -> int: ...

    def __hash__(self) -> int: ...


class CacheBudget:
    """Keeps some caches together within a number of bytes."""

    def __init__(self, bytes_max: int = DEFAULT_BYTES_MAX) -> None:
        """Takes the bound; caches join by themselves."""
        self._bytes_max = bytes_max
        # Not less than what they hold: a cache that is no more is noticed when the bound seems to be reached.
        self._used_bytes = 0
        self._caches: WeakSet[BudgetedCache] = WeakSet()
        self._told: dict[int, tuple[int, int, int]] = {}

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
        """Counts what a cache has just taken in, or, negative, given up."""
        self._used_bytes += size_bytes
        if self._used_bytes > self._bytes_max:
            self._shrink()

    def _shrink(self) -> None:
        caches = list(self._caches)
        self._used_bytes = sum(cache.size_bytes for cache in caches)
        if self._used_bytes <= self._bytes_max:
            return
        target_bytes = int(self._bytes_max * _KEPT_SHARE)
        caches.sort(key=lambda cache: cache.size_bytes, reverse=True)
        while self._used_bytes > target_bytes and caches[0].size_bytes > 0:
            # Down to the size of the second, then those two are the largest, and so on.
            level_bytes = max((cache.size_bytes for cache in caches[1:]), default=0)
            excess_bytes = self._used_bytes - target_bytes
            _evict(caches[0], max(0, min(level_bytes - 1, caches[0].size_bytes - 1), caches[0].size_bytes - excess_bytes))
            caches.sort(key=lambda cache: cache.size_bytes, reverse=True)
            self._used_bytes = sum(cache.size_bytes for cache in caches)

    def publish(self) -> None:
        """Brings the metrics up to date: a cache itself only counts, for it is asked thousands of times a second."""
