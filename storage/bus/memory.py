"""The bus of a server with one process."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from storage.bus.base import Subscription, Wake
from storage.database import forbid_in_transaction


class MemoryBus:
    """Carries wakes within the process."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    async def wake(self, keys: Collection[str], position: int) -> None:
        """Wakes those who wait for any of the keys; to be called after the commit."""
        forbid_in_transaction("A wake")
        self.deliver(Wake(keys=frozenset(keys), position=position))

    def deliver(self, wake: Wake) -> None:
        """Gives a wake to all listeners of this process."""
        for subscription in self._subscriptions:
            subscription.offer(wake)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """All wakes from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def listen_for(self, keys: Collection[str]) -> None:
        """Does nothing: all wakes come here."""

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Does nothing: no wake is missed."""

    async def run(self) -> None:
        """Waits to be cancelled: there is nothing to carry."""
        await asyncio.Event().wait()
