"""Ends the accounts of guests that nobody uses any more; a guest cannot log in again, so they are lost anyway.

https://spec.matrix.org/v1.19/client-server-api/#guest-access
"""

import logging
import secrets
from typing import Final

from homeserver.core.clock import Clock
from homeserver.services.accounts.deactivation import Deactivation
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases
from storage.users import list_unused_guests

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 3600.0
_BATCH_MAX: Final = 200
"""So many leave their rooms each hour, at most."""
_LEASE: Final = "guest_sweep"


class GuestSweep:
    """Sweeps every hour, in one process at a time."""

    def __init__(self, *, db: Database, clock: Clock, deactivation: Deactivation, unused_ms: int | None) -> None:
        """Takes its means, and after how long an unused guest goes; None: never."""
        self._db = db
        self._clock = clock
        self._deactivation = deactivation
        self._unused_ms = unused_ms
        self._holder = secrets.token_urlsafe(9)

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                async with self._db.connection() as conn:
                    duration_ms = int(_INTERVAL_SECONDS * 1000)
                    is_ours = await acquire_leases(conn, [_LEASE], holder=self._holder, duration_ms=duration_ms)
                if is_ours:
                    await self.sweep()
            except DatabaseError as error:
                logger.warning("Unused guests were not swept: %s", error)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def sweep(self) -> None:
        """Deactivates a batch of guests that have not been seen for long, those first that were made first."""
        if self._unused_ms is None:
            return
        unused_since_ts = self._clock.now_ms() - self._unused_ms
        async with self._db.connection() as conn:
            guests = await list_unused_guests(conn, unused_since_ts=unused_since_ts, limit=_BATCH_MAX)
        for user_id in guests:
            await self._deactivation.deactivate(user_id, erase=False)
        if guests:
            logger.info("%d guests that nobody used are deactivated", len(guests))
