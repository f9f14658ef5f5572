"""Leaves servers alone that do not answer: one back-off for all kinds of requests, shared by all workers.

A pause grows from seconds to a day; a server that has been away for two weeks is tried once a week. It ends at once
when the server answers, and when it asks something of this one. The database holds it; what a worker has read is
believed for a few seconds.
"""

import logging
import secrets
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.destinations import (
    BackoffSteps,
    DestinationRow,
    delete_destinations,
    find_destination,
    make_due,
    note_failure,
    note_pause,
    note_success,
)
from storage.errors import DatabaseError

logger = logging.getLogger(__name__)

SECOND_MS: Final = 1000
DAY_MS: Final = 86_400 * SECOND_MS

STEPS: Final = BackoffSteps(
    first_ms=5 * SECOND_MS, factor=3, longest_ms=DAY_MS, dead_after_ms=14 * DAY_MS, dead_ms=7 * DAY_MS
)
JITTER: Final = 0.2
PAUSE_MS_MAX: Final = 3_600 * SECOND_MS
"""The longest that a server may ask to be left alone (429)."""

FRESH_MS: Final = 5 * SECOND_MS
KNOWN_MAX: Final = 20_000
SUCCESS_NOTED_EVERY_MS: Final = 3_600 * SECOND_MS
CONTACT_COUNTS_EVERY_MS: Final = 60 * SECOND_MS
CONTACTS_MAX: Final = 10_000
CONTACTS_EVERY_SECONDS: Final = 1.0
UNUSED_MS: Final = 30 * DAY_MS

OUTCOMES: Final = Counter("heliograph_federation_outcomes", "How requests to other servers ended.", ["outcome"])


class Destinations:
    """Which servers may be asked now. `run()` must be running for inbound contact to count."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._known: BoundedCache[ServerName, tuple[int, DestinationRow]] = BoundedCache(
            "destinations", weight_max=KNOWN_MAX
        )
        self._contacts: set[ServerName] = set()
        self._counted: BoundedCache[ServerName, int] = BoundedCache("contacts", weight_max=KNOWN_MAX)
        self._on_back: list[Callable[[ServerName], None]] = []

    def on_back(self, callback: Callable[[ServerName], None]) -> None:
        """Has a function called for each server whose pause has ended because it answered or asked something."""
        self._on_back.append(callback)

    async def is_due(self, destination: ServerName) -> bool:
        """Whether a server may be asked now."""
        return (await self.status(destination)).retry_at_ts <= self._clock.now_ms()

    async def status(self, destination: ServerName) -> DestinationRow:
        """How a server stands; `retry_at_ts` says when it may be asked again.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        now_ms = self._clock.now_ms()
        known = self._known.get(destination)
        if known is not None and now_ms - known[0] < FRESH_MS:
            return known[1]
        async with self._db.connection() as conn:
            row = await find_destination(conn, destination)
        return self._learn(destination, row or DestinationRow())

    async def succeeded(self, destination: ServerName) -> None:
        """Says that a server has answered, be it with an error of its own."""
        OUTCOMES.labels("success").inc()
        now_ms = self._clock.now_ms()
        before = await self.status(destination)
        if before.failing_since_ts is None and before.last_success_ts > now_ms - SUCCESS_NOTED_EVERY_MS:
            return
        async with self._db.connection() as conn:
            await note_success(conn, destination, now_ms=now_ms)
        self._learn(destination, DestinationRow(last_success_ts=now_ms))
        if before.failing_since_ts is not None:
            logger.info("The server %s answers again", destination)
            self._tell_back(destination)

    async def failed(self, destination: ServerName) -> None:
        """Says that a server cannot be reached or talks nonsense."""
        OUTCOMES.labels("failure").inc()
        jitter = 1 + JITTER * (secrets.randbelow(2001) - 1000) / 1000
        async with self._db.connection() as conn:
            row = await note_failure(conn, destination, now_ms=self._clock.now_ms(), steps=STEPS, jitter=jitter)
        self._learn(destination, row)

    async def paused(self, destination: ServerName, *, retry_after_ms: int) -> None:
        """Says that a server has asked to be left alone for a time (429)."""
        OUTCOMES.labels("limited").inc()
        retry_at_ts = self._clock.now_ms() + min(max(retry_after_ms, 0), PAUSE_MS_MAX)
        async with self._db.connection() as conn:
            row = await note_pause(conn, destination, retry_at_ts=retry_at_ts)
        self._learn(destination, row)

    def note_contact(self, origin: ServerName) -> None:
        """Says that a server has asked something of this one, with a good signature. It costs nothing here and now.

        It counts once a minute: a server that reaches us but cannot be reached is not tried all the time.
        """
        now_ms = self._clock.now_ms()
        if now_ms - (self._counted.get(origin) or 0) >= CONTACT_COUNTS_EVERY_MS and len(self._contacts) < CONTACTS_MAX:
            self._counted.put(origin, now_ms)
            self._contacts.add(origin)

    async def run(self) -> None:
        """Makes servers due that have asked something, and forgets old ones, until it is cancelled."""
        swept_ms = self._clock.now_ms()
        while True:
            await self._clock.sleep(CONTACTS_EVERY_SECONDS)
            try:
                await self._count_contacts()
                if self._clock.now_ms() - swept_ms > DAY_MS:
                    swept_ms = self._clock.now_ms()
                    await self._sweep(swept_ms)
            except DatabaseError as error:
                logger.warning("Contacts of other servers could not be noted, and will be later: %s", error)

    async def _count_contacts(self) -> None:
        if not self._contacts:
            return
        contacts = frozenset(self._contacts)
        async with self._db.connection() as conn:
            back = await make_due(conn, contacts, now_ms=self._clock.now_ms())
        self._contacts -= contacts
        for destination in back:
            self._known.discard(destination)
            self._tell_back(destination)

    async def _sweep(self, now_ms: int) -> None:
        async with self._db.connection() as conn:
            await delete_destinations(conn, unused_since_ts=now_ms - UNUSED_MS)

    def _learn(self, destination: ServerName, row: DestinationRow) -> DestinationRow:
        self._known.put(destination, (self._clock.now_ms(), row))
        return row

    def _tell_back(self, destination: ServerName) -> None:
        for callback in self._on_back:
            callback(destination)
