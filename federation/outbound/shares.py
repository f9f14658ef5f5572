"""Shares the other servers out among the worker processes, so that each is served by one of them at a time.

A server belongs to a share by the hash of its name, and the worker that holds the share's lease serves it. Every
worker also announces itself by a lease: so each knows how many there are, and how many shares are fair. Who has more
gives some back; who has fewer takes those that are free.
"""

import asyncio
import logging
import secrets
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from storage.database import Connection, Database
from storage.destination_shares import count_leases_named
from storage.errors import DatabaseError
from storage.leases import (
    LEASE_MS,
    RENEWAL_SECONDS,
    RENEWAL_SECONDS_MAX,
    acquire_leases,
    delete_leases,
    new_holder,
    renew_leases,
)

logger = logging.getLogger(__name__)

SHARES: Final = 32
"""Never changes: positions are saved by share."""

RELEASE_SECONDS_MAX: Final = 3.0
_RETRY_SECONDS: Final = 0.5
_ATTEMPT_SECONDS_MIN: Final = 0.5

_WORKER: Final = "federation_worker:"
_SHARE: Final = "federation_share:"


def share_of(destination: ServerName) -> int:
    """The share that a server belongs to: from 0 on, below `SHARES`."""
    return zlib.crc32(destination.encode()) % SHARES


class Shares:
    """The shares of this worker. `run()` must be running to get any."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._holder = new_holder()
        self._held: frozenset[int] = frozenset()
        self._renewed_at = clock.monotonic()
        self._on_change: list[Callable[[frozenset[int]], Awaitable[None]]] = []

    @property
    def held(self) -> frozenset[int]:
        """The shares that this worker serves now."""
        return self._held

    def serves(self, destination: ServerName) -> bool:
        """Whether it is this worker that sends to a server."""
        return share_of(destination) in self._held

    def on_change(self, callback: Callable[[frozenset[int]], Awaitable[None]]) -> None:
        """Has a function called with the shares that remain and those that are new, whenever they have changed.

        A share is given back only when the function has returned: it stops what goes on for the share.
        """
        self._on_change.append(callback)

    async def run(self) -> None:
        """Takes, renews and gives back shares, until it is cancelled."""
        try:
            while True:
                is_renewed = await self._round()
                await self._clock.sleep(RENEWAL_SECONDS if is_renewed else _RETRY_SECONDS)
        finally:
            await self._release_all()

    async def _round(self) -> bool:
        """Renews, takes or gives back; False if the database does not let it."""
        started = self._clock.monotonic()
        limit_seconds = max(self._renewed_at + RENEWAL_SECONDS_MAX - started, _ATTEMPT_SECONDS_MIN)
        try:
            async with asyncio.timeout(min(limit_seconds, RENEWAL_SECONDS)), self._db.connection() as conn:
                held = await self._renew(conn)
                surplus = frozenset(sorted(held)[await self._fair(conn) :])
                if not surplus:
                    held |= await self._take(conn, held, await self._fair(conn) - len(held))
        except (DatabaseError, TimeoutError) as error:
            logger.warning("The shares of other servers could not be renewed: %s", type(error).__name__)
            if self._clock.monotonic() - self._renewed_at >= RENEWAL_SECONDS_MAX:
                await self._change(frozenset())
            return False
        self._renewed_at = started
        await self._change(held - surplus)
        if surplus:
            await self._give_back(surplus)
        return True

    async def _renew(self, conn: Connection) -> frozenset[int]:
        """Announces this worker and renews its shares; those that others have taken are gone."""
        await acquire_leases(conn, [_WORKER + self._holder], holder=self._holder, duration_ms=LEASE_MS)
        if not self._held:
            return frozenset()
        kept = await renew_leases(conn, _names(self._held), holder=self._holder, duration_ms=LEASE_MS)
        return frozenset(int(name.removeprefix(_SHARE)) for name in kept)

    async def _fair(self, conn: Connection) -> int:
        """How many shares each worker has if all have about the same."""
        return -(-SHARES // max(await count_leases_named(conn, _WORKER), 1))

    async def _take(self, conn: Connection, held: frozenset[int], count: int) -> frozenset[int]:
        """Takes free shares, at most so many; each worker tries them in another order."""
        order = secrets.SystemRandom().sample(range(SHARES), SHARES)
        taken: set[int] = set()
        wanted = [share for share in order if share not in held]
        while len(taken) < count and wanted:
            trial, wanted = wanted[: count - len(taken)], wanted[count - len(taken) :]
            acquired = await acquire_leases(conn, _names(trial), holder=self._holder, duration_ms=LEASE_MS)
            taken |= {int(name.removeprefix(_SHARE)) for name in acquired}
        return frozenset(taken)

    async def _change(self, held: frozenset[int]) -> None:
        if held == self._held:
            return
        self._held = held
        for callback in self._on_change:
            await callback(held)

    async def _give_back(self, shares: frozenset[int]) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX), self._db.connection() as conn:
                await delete_leases(conn, _names(shares), holder=self._holder)
        except (DatabaseError, TimeoutError):
            logger.info("Shares of other servers are left to expire")

    async def _release_all(self) -> None:
        """Gives everything back as the worker stops, also what it was just about to take."""
        self._held = frozenset()
        names = [_WORKER + self._holder, *_names(range(SHARES))]
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX), self._db.connection() as conn:
                await delete_leases(conn, names, holder=self._holder)
        except (DatabaseError, TimeoutError):
            logger.info("The shares of this worker are left to expire")


def _names(shares: Iterable[int]) -> list[str]:
    return [f"{_SHARE}{share}" for share in shares]
