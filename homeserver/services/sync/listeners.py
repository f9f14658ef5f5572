"""Those who sync, in the hub: a user keeps its places from one sync to the next.

So a sync costs the same in however many rooms the user is.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import UserId
from homeserver.services.stream.hub import WAITERS, Hub, Waiter

# Whoever has not synced for so long gives its places up.
KEPT_SECONDS: Final = 120.0
KEYS_MAX: Final = 500_000


class Listener:
    """A user's places in the hub, and those of its syncs that wait."""

    __slots__ = ("_waiters", "keys", "used_at")

    def __init__(self, keys: frozenset[str], used_at: float) -> None:
        self.keys = keys
        self.used_at = used_at
        self._waiters: set[Waiter] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether any sync waits."""
        return bool(self._waiters)

    def notify(self, position: int) -> None:
        """Tells all syncs of the user that wait."""
        for waiter in self._waiters:
            waiter.notify(position)

    @contextmanager
    def wait(self) -> Iterator[Waiter]:
        """A sync's own place, in which it is told of all news from now on."""
        waiter = Waiter()
        self._waiters.add(waiter)
        WAITERS.inc()
        try:
            yield waiter
        finally:
            WAITERS.dec()
            self._waiters.discard(waiter)


class Listeners:
    """The users who sync with this process, those who have not synced for longest first."""

    def __init__(self, *, hub: Hub, clock: Clock, keys_max: int = KEYS_MAX) -> None:
        """Starts with nobody; `keys_max` bounds the keys of all who do not wait just now."""
        self._hub = hub
        self._clock = clock
        self._keys_max = keys_max
        self._keys = 0
        self._listeners: OrderedDict[UserId, Listener] = OrderedDict()

    def of(self, user_id: UserId, keys: frozenset[str]) -> Listener:
        """A user's places, which are those of these keys from now on."""
        now = self._clock.monotonic()
        listener = self._listeners.get(user_id)
        if listener is None:
            self._give_up_old(now)
            listener = self._listeners[user_id] = Listener(keys, now)
            self._keys += len(keys)
            self._hub.add(listener, keys)
            return listener
        listener.used_at = now
        self._listeners.move_to_end(user_id)
        if listener.keys is not keys:
            if listener.is_waiting:
                # Another sync of the user may already know of a room that this one does not.
                keys |= listener.keys
            self._hub.add(listener, keys - listener.keys)
            self._hub.remove(listener, listener.keys - keys)
            self._keys += len(keys) - len(listener.keys)
            listener.keys = keys
        return listener

    def _give_up_old(self, now: float) -> None:
        for user_id in list(islice(self._listeners, 2)):
            listener = self._listeners[user_id]
            if now - listener.used_at < KEPT_SECONDS and self._keys <= self._keys_max:
                return
            if listener.is_waiting:
                self._listeners.move_to_end(user_id)
                continue
            del self._listeners[user_id]
            self._keys -= len(listener.keys)
            self._hub.remove(listener, listener.keys)
