"""How many requests to other servers run at once: in total, and to each of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Gauge

from homeserver.core.errors import RemoteUnavailable
from homeserver.core.ids import ServerName

TOTAL_MAX: Final = 150
PER_DESTINATION_MAX: Final = 16
WAITING_PER_DESTINATION_MAX: Final = 500

IN_FLIGHT: Final = Gauge(
    "heliograph_federation_requests_in_flight", "Requests to other servers that run now.", multiprocess_mode="livesum"
)


class RequestSlots:
    """Lets requests run in the order they came, as long as there is room."""

    def __init__(self, *, total_max: int = TOTAL_MAX, per_destination_max: int = PER_DESTINATION_MAX) -> None:
        self._total = asyncio.Semaphore(total_max)
        self._per_destination_max = per_destination_max
        # Each destination that has requests, running or waiting, and how many.
        self._destinations: dict[ServerName, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def taken(self, destination: ServerName) -> AsyncIterator[None]:
        """A slot, for the time of the block; waits for one without a limit of time.

        Raises:
            RemoteUnavailable: too many wait for the same server already.
        """
        semaphore, users = self._destinations.get(destination, (None, 0))
        if semaphore is None:
            semaphore = asyncio.Semaphore(self._per_destination_max)
        if users >= WAITING_PER_DESTINATION_MAX:
            raise RemoteUnavailable(f"Too many requests to {destination} are waiting")
        self._destinations[destination] = (semaphore, users + 1)
        try:
            async with semaphore, self._total:
                with IN_FLIGHT.track_inprogress():
                    yield
        finally:
            _, users = self._destinations[destination]
            if users == 1:
                del self._destinations[destination]
            else:
                self._destinations[destination] = (semaphore, users - 1)
