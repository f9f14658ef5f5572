"""One at a time for each key: whoever comes while it is being done waits, and finds it done."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class SingleFlight(Generic[Key]):
    """The turns of all keys; a key is known only while somebody has its turn or waits for it."""

    def __init__(self) -> None:
        self._turns: dict[Key, asyncio.Lock] = {}
        self._users: dict[Key, int] = {}

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Waits for the key's turn, and has it for the time of the block; the caller limits the time."""
        turn = self._turns.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with turn:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._turns[key]
