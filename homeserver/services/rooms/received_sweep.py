"""Removes what was noted of things received from other servers, and of work that was begun, when it is past use."""

import logging
import secrets
from collections.abc import Awaitable
from typing import Final, Protocol

from homeserver.core.clock import Clock
from storage.database import Connection, Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases, delete_expired_leases
from storage.received_transactions import delete_old_transactions
from storage.relayed_events import delete_old_relayed_events
from storage.remote_device_lists import delete_left_lists

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 600.0
_BATCH_MAX: Final = 5_000
_LEASE: Final = "received_sweep"


class _Delete(Protocol):
    """Removes some old rows; returns how many."""

    def __call__(self, conn: Connection, *, limit: int) -> Awaitable[int]: ...


class ReceivedSweep:
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
                logger.warning("What was received long ago was not swept: %s", error)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def sweep(self) -> None:
        """Removes all that is old enough, a batch at a time."""
        for delete in (delete_old_transactions, delete_old_relayed_events, delete_left_lists, delete_expired_leases):
            await self._sweep_with(delete)

    async def _sweep_with(self, delete: _Delete) -> None:
        count = _BATCH_MAX
        while count == _BATCH_MAX:
            async with self._db.connection() as conn:
                count = await delete(conn, limit=_BATCH_MAX)
