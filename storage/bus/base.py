"""The bus tells the processes of one server that there may be something new. It carries no data and may lose a wake.

Whoever is woken reads the database; whoever is not is served by the hub's tick a second later.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Counter

WAKES_QUEUED_MAX: Final = 10_000
INTEREST_SECONDS: Final = 30.0

WAKES_LOST: Final = Counter("heliograph_bus_wakes_lost", "Wakes that were dropped; the hub's tick makes up for them.")


@dataclass(frozen=True, slots=True)
class Wake:
    """What a bus carries.

    Attributes:
        keys: what has changed, for example `room:!a:b` or `user:@a:b`.
        position: the position of what was written; a reader's bound must lie above it to see that.
    """

    keys: frozenset[str]
    position: int


def kind_of(key: str) -> str:
    """The key that stands for all keys of a kind: `room:` for `room:!a:b`."""
    return key[: key.find(":") + 1]


class Subscription:
    """The wakes for one listener, in a queue with a bound."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Wake] = asyncio.Queue(WAKES_QUEUED_MAX)

    def offer(self, wake: Wake) -> None:
        """Queues a wake; drops it if the listener is far behind."""
        try:
            self._queue.put_nowait(wake)
        except asyncio.QueueFull:
            WAKES_LOST.inc()

    async def next(self) -> Wake:
        """Waits for the next wake."""
        return await self._queue.get()


class Bus(Protocol):
    """What services need of a bus."""

    async def wake(self, keys: Collection[str], position: int) -> None:
        """Wakes those who wait for any of the keys, in all processes. To be called after the commit.

        Raises:
            ForbiddenInTransaction: a transaction is open here.
        """
        ...

    def subscribe(self) -> AbstractContextManager[Subscription]:
        """All wakes that come here from now on: those of this process, and what it listens for of others."""
        ...

    def listen_for(self, keys: Collection[str]) -> None:
        """Says that wakes for keys are wanted in this process, for a while; `room:` stands for all of its kind.

        Whoever still wants them says so again every `INTEREST_SECONDS`. It takes a moment to take effect, and wakes may
        come for other keys too.
        """
        ...

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Has a function called whenever wakes may have been missed: what is wanted now is heard only from now on."""
        ...

    async def run(self) -> None:
        """Carries wakes between processes until it is cancelled."""
        ...
