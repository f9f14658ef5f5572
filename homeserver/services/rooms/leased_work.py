"""Work on a room that only one process may do at a time: entering it from outside, completing its state.

The work holds a lease, which is renewed meanwhile; whoever loses it is cut off. What it writes step by step is guarded
besides (`storage.room_import.hold_lease`), for a process may be late to notice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from homeserver.core.clock import Clock
from homeserver.core.errors import UnavailableForNow
from homeserver.services.lease_renewal import LeaseLost, keep_lease
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import LEASE_MS, acquire_leases, delete_leases, new_holder

_RELEASE_SECONDS_MAX: Final = 3.0
_LOOK_AGAIN_SECONDS: Final = 0.1

T = TypeVar("T")


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
        lease = Lease(name, new_holder())
        started = asked_at = self._clock.monotonic()
        while not await self._acquire(lease):
            if self._clock.monotonic() - started > wait_seconds_max:
                raise UnavailableForNow("Somebody else is busy with the room")
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)
            asked_at = self._clock.monotonic()
        return await self._run_held(lease, work, asked_at)

    async def run_if_free(self, name: str, work: Callable[[Lease], Awaitable[T]]) -> T | None:
        """Does the work, unless somebody else does; then None."""
        lease = Lease(name, new_holder())
        asked_at = self._clock.monotonic()
        return await self._run_held(lease, work, asked_at) if await self._acquire(lease) else None

    async def _acquire(self, lease: Lease) -> bool:
        async with self._db.connection() as conn:
            return bool(await acquire_leases(conn, [lease.name], holder=lease.holder, duration_ms=LEASE_MS))

    async def _run_held(self, lease: Lease, work: Callable[[Lease], Awaitable[T]], acquired_at: float) -> T:
        try:
            async with asyncio.TaskGroup() as tasks:
                renewal = tasks.create_task(
                    keep_lease(self._db, self._clock, name=lease.name, holder=lease.holder, renewed_at=acquired_at)
                )
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

    async def _release(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(_RELEASE_SECONDS_MAX), self._db.connection() as conn:
                await delete_leases(conn, [lease.name], holder=lease.holder)
        except (DatabaseError, TimeoutError):
            return  # it expires
