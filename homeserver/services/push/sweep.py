"""Removes what events did for single members when that is long past.

Afterwards unread events that are as old are not counted any more for those whose rows were removed.
"""

import logging
import secrets
from typing import Final

from homeserver.core.clock import Clock
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases
from storage.push_exceptions import delete_expired_exceptions

logger = logging.getLogger(__name__)

AGE_MS_MAX: Final = 30 * 24 * 3600 * 1000
_INTERVAL_SECONDS: Final = 600.0
_BATCH_MAX: Final = 5_000
_LEASE: Final = "push_exceptions_sweep"


class PushSweep:
    """Sweeps every ten minutes, in one process at a time."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
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
                logger.warning("Old push exceptions were not swept: %s", error)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def sweep(self, *, age_ms: int = AGE_MS_MAX) -> None:
        """Removes all rows of an age, a batch at a time."""
        count = _BATCH_MAX
        while count == _BATCH_MAX:
            async with self._db.connection() as conn:
                count = await delete_expired_exceptions(conn, age_ms=age_ms, limit=_BATCH_MAX)
