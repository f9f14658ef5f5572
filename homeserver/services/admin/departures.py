"""Takes deactivated users out of their rooms, however often it must begin again.

Deactivation only notes who has to leave; this work is done beside, by one process at a time.

https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

import asyncio
import logging
from typing import Final

from homeserver.core.ids import UserId
from homeserver.services.rooms.membership import Memberships
from storage import users
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases, delete_leases, new_holder

logger = logging.getLogger(__name__)

LEASE: Final = "departures"
# One user's rooms must be left within it; should that take longer, another process may begin with the same user.
LEASE_MS: Final = 300_000
LOOK_AGAIN_SECONDS: Final = 30.0
_USERS_PER_LOOK: Final = 100


class Departures:
    """The work of leaving rooms; `run()` does it."""

    def __init__(self, *, db: Database, memberships: Memberships, due: asyncio.Event) -> None:
        """Takes its means; `due` is set when somebody has to leave, so that nobody waits for the next look."""
        self._db = db
        self._memberships = memberships
        self._due = due
        self._holder = new_holder()

    async def run(self) -> None:
        """Looks for users who have to leave until it is cancelled."""
        while True:
            self._due.clear()
            try:
                await self._look()
            except DatabaseError as error:
                logger.warning("nobody could look for users who have to leave: %s", type(error).__name__)
            await self._wait()

    async def _look(self) -> None:
        async with self._db.connection() as conn:
            leaving = await users.list_pending_departures(conn, limit=_USERS_PER_LOOK)
        for user_id in leaving:
            async with self._db.connection() as conn:
                held = await acquire_leases(conn, [LEASE], holder=self._holder, duration_ms=LEASE_MS)
            if not held:
                return
            try:
                await self._leave(user_id)
            except Exception:
                # Of this user; the others shall not have to wait for it.
                logger.exception("a user could not be taken out of its rooms; this will be tried again")
        if leaving:
            async with self._db.connection() as conn:
                await delete_leases(conn, [LEASE], holder=self._holder)

    async def _leave(self, user_id: UserId) -> None:
        async with self._db.connection() as conn:
            user = await users.find_user(conn, user_id)
        if user is not None and user.deactivated:
            await self._memberships.leave_all(user_id)
        async with self._db.connection() as conn:
            await users.delete_pending_departure(conn, user_id)

    async def _wait(self) -> None:
        """Waits until it is due, or a while: another process may have deactivated somebody and stopped."""
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._due.wait()
        except TimeoutError:
            return
