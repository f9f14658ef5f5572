"""Work on a room that only one process may do at a time: entering it from outside, completing its state.

The work holds a lease, which is renewed meanwhile; whoever loses it is cut off. What it writes step by step is guarded
besides (`storage.room_import.hold_lease`), for a process may be late to notice.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from homeserver.core.clock import Clock
from homeserver.core.errors import UnavailableForNow
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases, delete_leases, renew_leases

LEASE_MS: Final = 30_000
_RENEWAL_SECONDS: Final = 8.0
_RENEWAL_SECONDS_MAX: Final = 20.0
_RELEASE_SECONDS_MAX: Final = 3.0
_LOOK_AGAIN_SECONDS: Final = 0.1

T = TypeVar("T")


class LeaseLost(Exception):
    """Another process does the work now."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is held."""

    name: str
    holder: str


class LeasedWork:
    """Runs work under leases."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def run(self, name: str, work: Callable[[Lease], Awaitable[T]], *, wait_seconds_max: float) -> T:
        """Waits until nobody else does work of this name, does it, and lets go.

        Raises:
            UnavailableForNow: somebody else does it for too long, or the lease was lost.
            Exception: what the work raises.
        """
        lease = Lease(name, secrets.token_urlsafe(12))
        started = self._clock.monotonic()
        while not await self._acquire(lease):
            if self._clock.monotonic() - started > wait_seconds_max:
                raise UnavailableForNow("Somebody else is busy with the room")
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)
        return await self._run_held(lease, work)

    async def run_if_free(self, name: str, work: Callable[[Lease], Awaitable[T]]) -> T | None:
        """Does the work, unless somebody else does; then None."""
        lease = Lease(name, secrets.token_urlsafe(12))
        return await self._run_held(lease, work) if await self._acquire(lease) else None

    async def _acquire(self, lease: Lease) -> bool:
        async with self._db.connection() as conn:
            return bool(await acquire_leases(conn, [lease.name], holder=lease.holder, duration_ms=LEASE_MS))

    async def _run_held(self, lease: Lease, work: Callable[[Lease], Awaitable[T]]) -> T:
        try:
            async with asyncio.TaskGroup() as tasks:
                renewal = tasks.create_task(self._renew(lease))
                try:
                    return await work(lease)
                finally:
                    renewal.cancel()
        except ExceptionGroup as group:
            # What the work itself raises leaves as it is.
            own = [error for error in group.exceptions if not isinstance(error, LeaseLost)]
            if own:
                raise own[0] from own[0].__cause__
            raise UnavailableForNow("Another process is busy with the room") from group
        finally:
            await self._release(lease)

    async def _renew(self, lease: Lease) -> None:
        renewed_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(_RENEWAL_SECONDS)
            started = self._clock.monotonic()
            try:
                async with asyncio.timeout(_RENEWAL_SECONDS), self._db.connection() as conn:
                    kept = await renew_leases(conn, [lease.name], holder=lease.holder, duration_ms=LEASE_MS)
            except (DatabaseError, TimeoutError):
                if started - renewed_at > _RENEWAL_SECONDS_MAX:
                    raise LeaseLost from None
                continue
            if not kept:
                raise LeaseLost
            renewed_at = started

    async def _release(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(_RELEASE_SECONDS_MAX), self._db.connection() as conn:
                await delete_leases(conn, [lease.name], holder=lease.holder)
        except (DatabaseError, TimeoutError):
            return  # it expires
