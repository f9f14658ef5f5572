"""The bus tells the processes of one server that there may be something new. It carries no data and may lose a wake.

Whoever is woken reads the database; whoever is not is served by the hub's tick a second later.
"""

import asyncio
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import Counter

WAKES_QUEUED_MAX: Final = 10_000

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
        """All wakes from now on, those of this process too."""
        ...

    async def run(self) -> None:
        """Carries wakes between processes until it is cancelled."""
        ...
