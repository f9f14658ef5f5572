"""Tells servers that lag behind of the devices that have changed meanwhile: of each user what was told last.

By that update they find out that they have missed others, and ask for the user's devices. However long a server was
away, it costs a row, and nothing is forgotten.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

import asyncio
import logging
from typing import Final

from federation.outbound.destination_wakes import wake_destinations
from federation.outbound.device_list_edus import WAITING_MAX, EduBody, last_devices, last_edus
from federation.outbound.edu_audience import EduAudience
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from homeserver.services.e2ee.key_queries import KeyQueries
from storage.bus.base import Bus
from storage.database import Database
from storage.destination_queues import NewEdu, insert_edus
from storage.device_updates import Lag, end_lag, list_due_lags, list_told_since, list_told_updates
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
SERVERS_PER_LOOK: Final = 100
USERS_MAX: Final = 500
"""Of so many users a server is told at once; of others when it has taken that."""


class DeviceListRecovery:
    """Looks regularly for servers that lag behind and may be told; `run()` does it."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, queries: KeyQueries, audience: EduAudience) -> None:
        """Takes its means; `queries` knows the keys of this server's users."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._queries = queries
        self._audience = audience
        self._due = asyncio.Event()

    def note_back(self, _: ServerName) -> None:
        """Says that a server answers again."""
        self._due.set()

    async def run(self) -> None:
        """Tells until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_regularly())
            while True:
                self._due.clear()
                try:
                    await self.look()
                except DatabaseError as error:
                    logger.warning("Servers that lag behind are told later: %s", type(error).__name__)
                await self._due.wait()

    async def _look_regularly(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self._due.set()

    async def look(self) -> None:
        """Tells each server that may be told now.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._db.connection() as conn:
            lags = await list_due_lags(conn, now_ms=self._clock.now_ms(), edus_max=WAITING_MAX, limit=SERVERS_PER_LOOK)
        for lag in lags:
            await self._tell(lag)

    async def _tell(self, lag: Lag) -> None:
        async with self._db.connection() as conn:
            changed = await list_told_since(conn, lag.position, limit=USERS_MAX)
            servers_of = await self._audience.of_users(conn, [user_id for user_id, _ in changed])
            users = [user_id for user_id, _ in changed if lag.destination in servers_of.get(user_id, ())]
            told = await list_told_updates(conn, users)
        # Devices of one position may stand on two pages.
        reached = changed[-1][1] if len(changed) == USERS_MAX else None
        found = await self._queries.local(last_devices(told), seen_by=None)
        bodies: list[EduBody] = [body for user_id, update in told.items() for body in last_edus(user_id, update, found)]
        edus = [NewEdu(destination=lag.destination, edu_type=edu_type, content=content) for edu_type, content in bodies]
        async with self._db.transaction() as conn:
            if not await end_lag(conn, lag, reached=reached):
                return
            if edus:
                await insert_edus(conn, edus, now_ms=self._clock.now_ms())
        if edus:
            await wake_destinations(self._bus, [lag.destination])
