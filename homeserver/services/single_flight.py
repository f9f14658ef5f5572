"""Does the same work once for all who want it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """The first who asks does the work itself; whoever comes meanwhile waits for it. Nothing is kept afterwards."""

    def __init__(self) -> None:
        self._flights: dict[Key, asyncio.Future[Value]] = {}

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """The outcome of the work, its exception too. If the one who does it is cancelled, another begins anew."""
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait({flight})
            if not flight.cancelled():
                return flight.result()
        return await self._lead(key, work)

    async def _lead(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        flight: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        try:
            value = await work()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # it is looked at, whether anybody else waits or not
            raise
        else:
            flight.set_result(value)
            return value
        finally:
            del self._flights[key]
            flight.cancel()  # only a flight without an outcome, for its leader was cancelled
