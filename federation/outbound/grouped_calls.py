"""Calls that come while another is running are made together: under load one call does the work of many.

It is for short work with the database, of which each process should not do much at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Argument = TypeVar("Argument")
Value = TypeVar("Value")


class _Waiting(Generic[Argument, Value]):
    """A call whose turn comes, and what becomes of it."""

    __slots__ = ("argument", "error", "is_done", "value")

    def __init__(self, argument: Argument) -> None:
        self.argument = argument
        self.is_done = False
        self.value: Value | None = None
        self.error: Exception | None = None


class GroupedCalls(Generic[Key, Argument, Value]):
    """One call with one argument for each key, in place of one call for each."""

    def __init__(
        self,
        run: Callable[[Mapping[Key, Argument]], Awaitable[Mapping[Key, Value]]],
        *,
        together_max: int,
        seconds_max: float,
    ) -> None:
        """Takes what makes the calls: `run` must bear to be called again with the same, if it was cancelled.

        Args:
            run: takes arguments by key; keys without a value may be absent from what it returns.
            together_max: how many are made together.
            seconds_max: how long each `run` may take.
        """
        self._run = run
        self._together_max = together_max
        self._seconds_max = seconds_max
        self._waiting: dict[Key, _Waiting[Argument, Value]] = {}
        self._lock = asyncio.Lock()

    async def call(self, key: Key, argument: Argument) -> Value | None:
        """The value for a key, which is not being called for by anybody else; None if there is none.

        Raises:
            TimeoutError: it took too long.
            Exception: what `run` raises, for all that were called for together.
        """
        own: _Waiting[Argument, Value] = _Waiting(argument)
        self._waiting[key] = own
        try:
            async with self._lock:
                if not own.is_done:
                    await self._run_waiting(key)
        finally:
            del self._waiting[key]
        if own.error is not None:
            raise own.error
        return own.value

    async def _run_waiting(self, own_key: Key) -> None:
        others = (key for key, each in self._waiting.items() if not each.is_done and key != own_key)
        together = {key: self._waiting[key] for key in (own_key, *islice(others, self._together_max - 1))}
        error: Exception | None = None
        values: Mapping[Key, Value] = {}
        try:
            async with asyncio.timeout(self._seconds_max):
                values = await self._run({key: each.argument for key, each in together.items()})
        except Exception as raised:  # noqa: BLE001 - handed on to everybody who waits for it
            error = raised
        for key, each in together.items():
            each.is_done, each.value, each.error = True, values.get(key), error
