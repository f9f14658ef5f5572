"""Keeping a lease while work goes on under it, and noticing in time that this cannot be done any more."""

import asyncio
from typing import Final, NoReturn

from homeserver.core.clock import Clock
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import LEASE_MS, RENEWAL_SECONDS, RENEWAL_SECONDS_MAX, renew_leases

_RETRY_SECONDS: Final = 0.5
_ATTEMPT_SECONDS_MIN: Final = 0.5


class LeaseLost(Exception):
    """Another process does the work now, or may do it soon."""


async def keep_lease(db: Database, clock: Clock, *, name: str, holder: str, renewed_at: float) -> NoReturn:
    """Renews a lease until it is cancelled.

    Args:
        db: the database.
        clock: the clock.
        name: of the lease.
        holder: who holds it.
        renewed_at: by the clock, before the lease was acquired.

    Raises:
        LeaseLost: somebody else holds it, or it could not be renewed for so long that somebody else may take it.
    """
    pause_seconds = RENEWAL_SECONDS
    while True:
        await clock.sleep(pause_seconds)
        started = clock.monotonic()
        # One that comes late asks nevertheless: if nobody else has taken the lease, nothing is lost.
        limit_seconds = max(renewed_at + RENEWAL_SECONDS_MAX - started, _ATTEMPT_SECONDS_MIN)
        try:
            async with asyncio.timeout(min(limit_seconds, RENEWAL_SECONDS)), db.connection() as conn:
                kept = await renew_leases(conn, [name], holder=holder, duration_ms=LEASE_MS)
        except (DatabaseError, TimeoutError):
            if clock.monotonic() - renewed_at >= RENEWAL_SECONDS_MAX:
                raise LeaseLost from None
            pause_seconds = _RETRY_SECONDS
            continue
        if not kept:
            raise LeaseLost
        renewed_at, pause_seconds = started, RENEWAL_SECONDS
