"""Events outside the part of a room's graph that this server holds: auth events, the state at a gap, invitations.

Each is judged by its own auth events (check 4 on receipt), and that is all that can be said of it while the state
before it is not known. An event that fails is kept and stays rejected for good, whichever way it comes again.

https://spec.matrix.org/v1.19/server-server-api/#rejection
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import Forbidden, UnavailableForNow
from homeserver.core.event_auth.auth_events import (
    CREATE,
    POWER_LEVELS,
    check_auth_events,
    create_event_id,
    state_from_auth_events,
)
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.event_chain import stored_form
from homeserver.services.rooms.gate import run_on
from homeserver.services.rooms.remote_redactions import find_waiting
from storage.append import NewEvent, RoomChanged
from storage.database import Connection, Database
from storage.errors import Serialization
from storage.events import list_pdus
from storage.outliers import KnownEvent, list_known_events, store_outliers
from storage.rooms import RoomRow
from storage.state import StateStore

_CHUNK: Final = 500
"""How many events are written in one transaction, which holds back every reader of the stream meanwhile."""

_ATTEMPTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class StoredOutlier:
    """An event that is stored now, in the graph or outside.

    Attributes:
        rejected: why it failed authorization; None if it did not.
    """

    event_nid: int
    rejected: str | None


@dataclass(slots=True)
class AuthPool:
    """Events by which others are judged: those that are stored, and those that have been judged before.

    Attributes:
        rejected: why those of them were rejected that were.
    """

    pdus: dict[EventId, Pdu] = field(default_factory=dict)
    rejected: dict[EventId, str] = field(default_factory=dict)
    _levels: dict[EventId, PowerLevels] = field(default_factory=dict)

    def judge(self, pdu: Pdu) -> str | None:
        """Judges an event by its own auth events; returns why it is rejected, or None."""
        try:
            check_auth_events(pdu, self.pdus, rejected=self.rejected.keys())
            state = state_from_auth_events(pdu, self.pdus)
            create, levels = state.get(CREATE), state.get(POWER_LEVELS)
            check_auth(pdu, state, power_levels=self._power_levels(levels, create))
        except Forbidden as error:
            return error.message
        return None

    def add(self, pdu: Pdu) -> str | None:
        """Judges an event, and lets it judge others; returns why it is rejected, or None."""
        reason = self.judge(pdu)
        self.know(pdu, rejected=reason)
        return reason

    def know(self, pdu: Pdu, *, rejected: str | None) -> None:
        """Lets an event judge others whose own judgement is known."""
        self.pdus[pdu.event_id] = pdu
        if rejected is not None:
            self.rejected[pdu.event_id] = rejected

    def forget(self, event_id: EventId) -> None:
        """Forgets an event that is stored otherwise now, because it has been redacted."""
        self.pdus.pop(event_id, None)
        self._levels.pop(event_id, None)

    def _power_levels(self, power_levels: Pdu | None, create: Pdu | None) -> PowerLevels | None:
        """The power levels, which thousands of events cite, so that they are read once; None: the rules read them."""
        if power_levels is None or create is None:
            return None
        levels = self._levels.get(power_levels.event_id)
        if levels is None:
            try:
                levels = self._levels[power_levels.event_id] = PowerLevels.in_force(power_levels, create)
            except Forbidden:
                return None  # not every event depends on them
        return levels


class Outliers:
    """Stores events outside the graph."""

    def __init__(self, *, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states

    async def store(self, room: RoomRow, events: Sequence[Pdu]) -> Mapping[EventId, StoredOutlier]:
        """Judges events that have passed the gate and stores them, in batches, in any order, as often as one likes.

        Args:
            room: their room, which must be known (`storage.rooms.insert_room`), but this server need not be in it.
            events: the events. Those that are stored already are left as they are.

        Returns:
            The events that are stored now, by id. Absent are those that cannot be judged: of other rooms, or with an
            auth event (of any generation) that is neither stored nor among `events`.

        Raises:
            UnavailableForNow: others keep getting in between.
        """
        wanted = {pdu.event_id: pdu for pdu in events if pdu.room_id == room.room_id}
        cited = {event_id for pdu in wanted.values() for event_id in auth_event_ids(pdu)}
        async with self._db.connection() as conn:
            known = await list_known_events(conn, {*wanted, *cited})
            pool = await self._pool(conn, known, cited)
        stored = {
            event_id: StoredOutlier(known[event_id].event_nid, known[event_id].rejected)
            for event_id in wanted
            if event_id in known and known[event_id].room_nid == room.room_nid
        }
        new = {event_id: pdu for event_id, pdu in wanted.items() if event_id not in known}
        ordered = list(_in_order(new, known.keys()))
        await run_on(ordered, lambda chunk: [pool.add(pdu) for pdu in chunk])
        nids = {event_id: event.event_nid for event_id, event in known.items()}
        for start in range(0, len(ordered), _CHUNK):
            written = await self._write(room, ordered[start : start + _CHUNK], pool.rejected, nids)
            stored |= written
            nids |= {event_id: outlier.event_nid for event_id, outlier in written.items()}
        return stored

    async def _pool(
        self, conn: Connection, known: Mapping[EventId, KnownEvent], cited: Collection[EventId]
    ) -> AuthPool:
        pool = AuthPool()
        for pdu in (await list_pdus(conn, [known[each].event_nid for each in cited if each in known])).values():
            pool.know(pdu, rejected=known[pdu.event_id].rejected)
        return pool

    async def _write(
        self,
        room: RoomRow,
        events: Sequence[Pdu],
        rejected: Mapping[EventId, str],
        nids: Mapping[EventId, int],
    ) -> dict[EventId, StoredOutlier]:
        """Writes events, each after its auth events."""
        references = {**nids, **{pdu.event_id: -number for number, pdu in enumerate(events, start=1)}}
        for _ in range(_ATTEMPTS_MAX):
            async with self._db.connection() as conn:
                waiting = await find_waiting(conn, self._states, room, events)
            rows: list[NewEvent] = []
            for pdu in events:
                kept, redaction = waiting.applied_to(pdu)
                rows.append(
                    stored_form(
                        kept,
                        prev_events=(),
                        auth_events=[references[event_id] for event_id in pdu.auth_events],
                        replaces=None,
                        rejected=rejected.get(pdu.event_id),
                        redaction=redaction,
                    )
                )
            try:
                async with self._db.transaction() as conn:
                    written = await store_outliers(conn, room.room_nid, rows, reviewed_redactions=waiting.reviewed)
            except (RoomChanged, Serialization):
                continue
            return {event_id: StoredOutlier(*row) for event_id, row in written.items()}
        raise UnavailableForNow("The room is too busy")


def auth_event_ids(pdu: Pdu) -> tuple[EventId, ...]:
    """The events by which an event is judged: those that it cites, and the create event that the room's id may name."""
    if pdu.room_version.room_id_is_create_hash and pdu.type != CREATE[0]:
        return (create_event_id(pdu.room_id), *pdu.auth_events)
    return pdu.auth_events


def _in_order(events: Mapping[EventId, Pdu], known: Collection[EventId]) -> Iterator[Pdu]:
    """Events with each after its auth events; those that cannot be judged are left out.

    That is so for those that lack an auth event, and for those that cite each other in a circle.
    """
    lacking: dict[EventId, int] = {}
    cited_by: dict[EventId, list[EventId]] = {}
    for event_id, pdu in events.items():
        cited = {cited_id for cited_id in auth_event_ids(pdu) if cited_id not in known}
        lacking[event_id] = len(cited)
        for cited_id in cited:
            cited_by.setdefault(cited_id, []).append(event_id)
    ready = [event_id for event_id, count in lacking.items() if not count]
    while ready:
        event_id = ready.pop()
        yield events[event_id]
        for citing_id in cited_by.get(event_id, ()):
            lacking[citing_id] -= 1
            if not lacking[citing_id]:
                ready.append(citing_id)
