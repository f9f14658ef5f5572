"""Events of other servers that could not be taken, for nobody could be asked for what they refer to: they are kept, and
tried again.

Whoever has sent such an event does not send it again. In a room where nothing else happens it would be lost.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu
from storage.database import Database
from storage.errors import DatabaseError
from storage.leases import acquire_leases
from storage.postponed_events import PostponedEvent, delete_postponed, insert_postponed, list_due_events, postpone_again

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 5.0
_FIRST_PAUSE_MS: Final = 10_000
_PAUSE_MS_MAX: Final = 3600 * 1000
_FAILURES_MAX: Final = 12
_EVENTS_MAX: Final = 200
_LEASE: Final = "postponed_events"


class TakeAgain(Protocol):
    """Takes events that have passed the gate before (`IncomingEvents.take_again`)."""

    async def __call__(self, origin: ServerName, room_id: RoomId, events: Sequence[Pdu]) -> Mapping[EventId, bool]:
        """Takes events of a room; tells for each whether it is done with, be it taken or not."""
        ...


class PostponedEvents:
    """Keeps such events, and tries them again, in one process at a time."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._holder = secrets.token_urlsafe(9)

    async def keep(self, room_nid: int, origin: ServerName, events: Sequence[Pdu]) -> None:
        """Keeps events that a server has sent."""
        retry_at_ts = self._clock.now_ms() + _FIRST_PAUSE_MS
        async with self._db.connection() as conn:
            await insert_postponed(conn, room_nid, origin, events, retry_at_ts=retry_at_ts)

    async def run(self, take_again: TakeAgain) -> None:
        """Tries again what is due until it is cancelled."""
        while True:
            try:
                async with self._db.connection() as conn:
                    duration_ms = int(_INTERVAL_SECONDS * 4000)
                    is_ours = await acquire_leases(conn, [_LEASE], holder=self._holder, duration_ms=duration_ms)
                if is_ours:
                    await self.retry(take_again)
            except DatabaseError as error:
                logger.warning("Postponed events were not tried again: %s", error)
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def retry(self, take_again: TakeAgain) -> None:
        """Tries again what is due now."""
        async with self._db.connection() as conn:
            due = await list_due_events(conn, now_ms=self._clock.now_ms(), limit=_EVENTS_MAX)
        groups: dict[tuple[int, ServerName], list[PostponedEvent]] = {}
        for each in due:
            groups.setdefault((each.room_nid, each.origin), []).append(each)
        for (room_nid, origin), group in groups.items():
            outcome = await take_again(origin, group[0].pdu.room_id, [each.pdu for each in group])
            done = [event_id for event_id, is_done in outcome.items() if is_done]
            failed = [event_id for event_id, is_done in outcome.items() if not is_done]
            async with self._db.connection() as conn:
                await delete_postponed(conn, room_nid, done)
                await postpone_again(
                    conn,
                    room_nid,
                    failed,
                    now_ms=self._clock.now_ms(),
                    first_pause_ms=_FIRST_PAUSE_MS,
                    pause_ms_max=_PAUSE_MS_MAX,
                    failures_max=_FAILURES_MAX,
                )
