"""A cache with a bound, which forgets what was used least recently. It is for what cannot change: nothing expires."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from storage.cache_budget import PROCESS_BUDGET, CacheBudget

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

ENTRY_BYTES: Final = 300
"""What a small entry takes: a key, a value, and their place."""


class BoundedCache(Generic[Key, Value]):
    """Values by key, together never heavier than the bound, and within the budget of all caches.

    Attributes:
        name: labels its metrics.
        size_bytes: what the entries take, estimated.
        hits: lookups that found something.
        misses: lookups that found nothing.
        evictions: entries that had to go for others.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_bytes_each",
        "_entries",
        "_weigh",
        "_weight",
        "_weight_max",
        "evictions",
        "hits",
        "misses",
        "name",
    )

    def __init__(
        self,
        name: str,
        *,
        weight_max: int,
        weigh: Callable[[Value], int] = lambda _: 1,
        bytes_each: int = ENTRY_BYTES,
        budget: CacheBudget = PROCESS_BUDGET,
    ) -> None:
        """Makes an empty cache.

        Args:
            name: labels its metrics.
            weight_max: the bound of the sum of weights.
            weigh: the weight of a value, which must stay the same; by default each counts one.
            bytes_each: what a weight of one means in bytes; 1 if values are weighed in bytes.
            budget: what it shares with other caches.
        """
        self.name = name
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._weigh = weigh
        self._weight = 0
        self._weight_max = weight_max
        self._bytes_each = bytes_each
        self._budget = budget
        budget.join(self)

    @property
    def size_bytes(self) -> int:
        """What the entries take, estimated."""
        return self._weight * self._bytes_each

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is thereby used; None if it is not here."""
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, at the cost of older ones. One that is heavier than the whole bound is not kept."""
        weight = self._weight
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._weight -= self._weigh(replaced)
        self._entries[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._weight_max:
            self.evict_oldest()
        self._budget.add((self._weight - weight) * self._bytes_each)

    def discard(self, key: Key) -> None:
        """Forgets a key, if it is here."""
        value = self._entries.pop(key, None)
        if value is not None:
            weight = self._weigh(value)
            self._weight -= weight
            self._budget.add(-weight * self._bytes_each)

    def evict_oldest(self) -> None:
        """Forgets what was used least recently, without telling the budget; there must be something."""
        _, dropped = self._entries.popitem(last=False)
        self._weight -= self._weigh(dropped)
        self.evictions += 1

    def items(self) -> list[tuple[Key, Value]]:
        """All entries, the least recently used first; none counts as used by this."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._budget.add(-self.size_bytes)
        self._weight = 0

    def __contains__(self, key: Key) -> bool:
        """Whether a key is here; it does not count as used by this."""
        return key in self._entries

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)
