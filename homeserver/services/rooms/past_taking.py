"""Taking events that lie in the past of a room: checked like all others, and written into its history at once.

They are stored outside the graph first, judged by their auth events; then the states along them are found out and they
get their places in one transaction. So whatever is interrupted may simply be done again.

https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.client_event import client_event
from homeserver.core.errors import RemoteRefused, RemoteUnavailable, UnavailableForNow
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.relations import relation_of
from homeserver.services.lease_renewal import LeaseLost
from homeserver.services.rooms.batches import replaced_event, summary_changes
from homeserver.services.rooms.event_chain import client_json, federation_json, unsigned_of_state
from homeserver.services.rooms.heads import Heads
from homeserver.services.rooms.hidden_events import is_hidden
from homeserver.services.rooms.inquiry import Inquiry
from homeserver.services.rooms.leased_work import Lease
from homeserver.services.rooms.missing_events import in_graph_order, leading_to
from homeserver.services.rooms.outliers import Outliers
from homeserver.services.rooms.past_order import can_be_placed, find_gaps, island_number, number_events
from homeserver.services.rooms.past_redactions import PastRedactions, find_redactions
from homeserver.services.rooms.past_states import PastEvent, PastStates, StatesToWrite
from homeserver.services.rooms.placing import EventPlacing, Reception
from homeserver.services.rooms.remote_redactions import redacted
from homeserver.services.rooms.room_import import require_lease
from homeserver.services.rooms.thread_roots import find_thread_roots
from storage.append import NewRelation, RoomChanged
from storage.backfill import (
    PlacedEvent,
    Placement,
    find_depths,
    find_event_at,
    find_floors,
    list_gaps,
    place_events,
)
from storage.database import Connection, Database
from storage.errors import Serialization
from storage.events import find_event_nids
from storage.missing_events import find_depths_in_gaps, find_places_of_missing
from storage.outliers import KnownEvent, list_known_events, list_outliers
from storage.partial_rooms import is_partial
from storage.rooms import RoomRow

_ATTEMPTS_MAX: Final = 3
_GAPS_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is known of events that belong into the history.

    Attributes:
        events: in the order of the graph, oldest first. Those that nothing leads to any more are left out.
        gaps: the gap that each belongs into.
        numbers: where each stands.
        nids: the numbers of their previous events that are stored.
        thread_roots: of those that belong to a thread.
    """

    events: Sequence[PastEvent]
    gaps: Mapping[EventId, int]
    numbers: Mapping[EventId, int]
    redactions: PastRedactions
    nids: Mapping[EventId, int]
    thread_roots: Mapping[EventId, EventId]


class PastTaking:
    """Takes parts of the history of rooms."""

    def __init__(
        self, *, db: Database, outliers: Outliers, placing: EventPlacing, states: PastStates, heads: Heads
    ) -> None:
        """Takes its means; of the placing it needs how auth events are had, and heads are those of the `Appender`."""
        self._db = db
        self._outliers = outliers
        self._placing = placing
        self._states = states
        self._heads = heads

    async def take(self, lease: Lease, inquiry: Inquiry, wanted: Collection[EventId], events: Sequence[Pdu]) -> int:
        """Takes events that have passed the gate into the history of a room that this server is in.

        Args:
            lease: for the history of this room; nobody else may be about it.
            inquiry: whom to ask for what they refer to.
            wanted: what was asked for. Of the others only those are taken that these lead to.
            events: the events.

        Returns:
            How many events have got their place.

        Raises:
            UnavailableForNow: the database is away, the room too busy, or somebody else has taken over.
        """
        for _ in range(_ATTEMPTS_MAX):
            new, known = await self._sift(inquiry, wanted, events)
            if not new:
                return 0
            await self._store(inquiry, new)
            judged = await self._judge(inquiry, wanted, new, known)
            found = await self._find_out(inquiry.room, wanted, judged, known)
            if not found.events:
                return 0
            try:
                return await self._write(lease, inquiry, found)
            except (RoomChanged, Serialization):
                continue
            except LeaseLost as error:
                raise UnavailableForNow("Another process fetches the history of the room") from error
        raise UnavailableForNow("The room is too busy")

    async def _sift(
        self, inquiry: Inquiry, wanted: Collection[EventId], events: Sequence[Pdu]
    ) -> tuple[list[Pdu], Mapping[EventId, KnownEvent]]:
        """Those of some events that belong into the history and are not there yet, in the order of the graph.

        Beside them what is known of them and of what they follow.
        """
        cited = {event_id for pdu in events for event_id in (pdu.event_id, *pdu.prev_events)}
        async with self._db.connection() as conn:
            known = await list_known_events(conn, cited)
        of_others = {event_id for event_id, event in known.items() if event.room_nid != inquiry.room.room_nid}
        possible = [
            pdu
            for pdu in events
            if of_others.isdisjoint((pdu.event_id, *pdu.prev_events))
            and not (pdu.event_id in known and known[pdu.event_id].in_graph)
        ]
        ordered, _ = in_graph_order({pdu.event_id: pdu for pdu in leading_to(wanted, possible)})
        return ordered, known

    async def _store(self, inquiry: Inquiry, events: Sequence[Pdu]) -> None:
        """Stores events outside the graph, and the auth events that they lack; some may not be stored by it."""
        # As it comes, the earliest is stored first.
        stored = await self._outliers.store(inquiry.room, events[::-1])
        unjudged = [pdu for pdu in events if pdu.event_id not in stored]
        if not unjudged:
            return
        # If not all can be had, some of the events can be judged nevertheless.
        with suppress(RemoteRefused, RemoteUnavailable, UnavailableForNow):
            await self._placing.load_auth_events(Reception(inquiry=inquiry), *unjudged)
        await self._outliers.store(inquiry.room, unjudged[::-1])

    async def _judge(
        self, inquiry: Inquiry, wanted: Collection[EventId], new: Sequence[Pdu], known: Mapping[EventId, KnownEvent]
    ) -> list[PastEvent]:
        """Finds out the states before events, and judges the events by them."""
        room_nid = inquiry.room.room_nid
        async with self._db.connection() as conn:
            rows = await list_outliers(conn, [pdu.event_id for pdu in new])
            members_lacking = await is_partial(conn, room_nid)
            places = await find_places_of_missing(conn, room_nid, wanted)
            behind = await find_event_at(conn, room_nid, min(places.values())) if places else None
        return await self._states.judge(
            inquiry,
            [pdu for pdu in new if pdu.event_id in rows],
            rows,
            known,
            near_id=None if behind is None else behind.state_id,
            members_lacking=members_lacking,
        )

    async def _find_out(
        self,
        room: RoomRow,
        wanted: Collection[EventId],
        judged: Sequence[PastEvent],
        known: Mapping[EventId, KnownEvent],
    ) -> _Found:
        """Finds out where events stand, and what they do."""
        async with self._db.connection() as conn:
            placeable = await _list_placeable(conn, room.room_nid, wanted, [event.pdu for event in judged], known)
            gaps = find_gaps(placeable, await _find_missing(conn, room.room_nid, wanted, judged))
            events = [event for event in judged if event.pdu.event_id in gaps]
            redactions = await find_redactions(conn, room.room_id, events)
            return _Found(
                events=events,
                gaps=gaps,
                numbers=number_events(
                    [event.pdu.event_id for event in events],
                    gaps,
                    await find_floors(conn, room.room_nid, set(gaps.values())),
                    unshown={event.pdu.event_id for event in events if not _is_shown(event, redactions)},
                ),
                redactions=redactions,
                nids=await find_event_nids(conn, {each for event in events for each in event.pdu.prev_events}),
                thread_roots=await find_thread_roots(conn, room.room_nid, [event.row.pdu for event in events]),
            )

    async def _write(self, lease: Lease, inquiry: Inquiry, found: _Found) -> int:
        """Writes events into the history.

        Raises:
            LeaseLost: somebody else has taken over.
            RoomChanged: something has changed since it was read.
        """
        placement = _placement(inquiry.room.room_nid, found)
        async with self._db.transaction() as conn:
            await require_lease(conn, lease)
            await place_events(conn, placement)
        if placement.is_current_changed:
            self._heads.discard(inquiry.room.room_id)
        return len(placement.events)


async def _list_placeable(
    conn: Connection,
    room_nid: int,
    wanted: Collection[EventId],
    events: Sequence[Pdu],
    known: Mapping[EventId, KnownEvent],
) -> list[Pdu]:
    """Those of some events that need not wait for others."""
    here = {pdu.event_id for pdu in events} | {event_id for event_id, event in known.items() if event.in_graph}
    # Of what is not stored it is only known that what follows it has a larger depth.
    depths: dict[EventId, int] = {}
    for pdu in events:
        for prev_id in pdu.prev_events:
            depths[prev_id] = min(pdu.depth - 1, depths.get(prev_id, pdu.depth - 1))
    depths |= await find_depths(conn, depths.keys() - here)
    depths |= await find_depths_in_gaps(conn, room_nid, wanted)
    missing = {event_id: depth for event_id, depth in depths.items() if event_id not in here}
    return can_be_placed(events, missing, wanted=wanted)


async def _find_missing(
    conn: Connection, room_nid: int, wanted: Collection[EventId], events: Sequence[PastEvent]
) -> dict[EventId, int]:
    """Which of some events are missing, each with the place before which it is."""
    missing = await find_places_of_missing(conn, room_nid, [event.pdu.event_id for event in events])
    for event in events:
        # Nothing that is here leads to it: somebody has named it.
        if event.pdu.event_id in wanted and event.pdu.event_id not in missing and event.rejected is None:
            number = await _find_island(conn, room_nid, event.pdu.origin_server_ts)
            if number is not None:
                missing[event.pdu.event_id] = number + 1
    return missing


async def _find_island(conn: Connection, room_nid: int, origin_server_ts: int) -> int | None:
    """Where an event stands of which only the time is known; None if there is no place where something is missing."""
    gaps = await list_gaps(conn, room_nid, limit=_GAPS_MAX)
    if not gaps:
        return None
    gap = next((each for each in gaps if each.origin_server_ts >= origin_server_ts), gaps[-1]).topological
    return island_number(gap, (await find_floors(conn, room_nid, [gap])).get(gap))


def _is_shown(event: PastEvent, redactions: PastRedactions) -> bool:
    """Whether an event has a number of its own in the history."""
    return event.rejected is None and not is_hidden(event.pdu) and event.pdu.event_id not in redactions.idle


def _waits(pdu: Pdu, redactions: PastRedactions) -> bool:
    """Whether an event is a redaction that is not to be seen before its target comes."""
    return pdu.event_id in redactions.awaiting and pdu.room_version.redaction_checked_on_arrival


def _placement(room_nid: int, found: _Found) -> Placement:
    states, numbers = StatesToWrite(), found.numbers
    texts = _texts(found)
    gaps: dict[int, int] = {}
    for event_id, gap in found.gaps.items():
        gaps[gap] = min(numbers[event_id], gaps.get(gap, gap))
    placed: dict[EventId, PlacedEvent] = {}
    missing: dict[EventId, int] = {}
    for event in found.events:
        event_id, redaction = event.pdu.event_id, found.redactions.redacted.get(event.pdu.event_id)
        earliest = gaps[found.gaps[event_id]]
        missing.update((prev_id, min(earliest, missing.get(prev_id, earliest))) for prev_id in event.pdu.prev_events)
        placed[event_id] = PlacedEvent(
            event_nid=event.row.event_nid,
            revision=event.row.revision,
            topological=numbers[event_id] if _is_shown(event, found.redactions) else None,
            state=states.add(event.before),
            prev_nids=[found.nids[each] for each in dict.fromkeys(event.pdu.prev_events) if each in found.nids],
            rejected=event.rejected,
            soft_failed=event_id in found.redactions.idle or _waits(event.pdu, found.redactions),
            redacted_by=None if redaction is None else redaction.event_id,
            thread_root=None if redaction is not None else found.thread_roots.get(event_id),
            texts=texts.get(event_id),
        )
    rewrites = found.redactions.rewrites.values()
    current = [rewrite.pdu for rewrite, _ in rewrites if rewrite.is_current]
    return Placement(
        room_nid=room_nid,
        events=placed,
        states=states.states,
        gaps=gaps,
        missing={event_id: number for event_id, number in missing.items() if event_id not in placed},
        relations=_relations(found),
        replaced_events=[replaced_event(rewrite, cause) for rewrite, cause in rewrites],
        awaited=[
            (target_id, placed[redaction_id].event_nid) for redaction_id, target_id in found.redactions.awaiting.items()
        ],
        summary=summary_changes(current),
        is_current_changed=bool(current),
    )


def _texts(found: _Found) -> dict[EventId, tuple[str, str]]:
    """The texts of those events that get others than they are stored with."""
    rewrites = (rewrite for rewrite, _ in found.redactions.rewrites.values())
    left = {rewrite.pdu.event_id: rewrite.pdu for rewrite in rewrites if rewrite.is_target}
    left |= {
        event.pdu.event_id: redacted(event.row.pdu)
        for event in found.events
        if event.pdu.event_id in found.redactions.redacted
    }
    texts = {}
    for event in found.events:
        event_id, pdu = event.pdu.event_id, left.get(event.pdu.event_id, event.row.pdu)
        cause = found.redactions.redacted.get(event_id)
        replaces = event.replaces and left.get(event.replaces.event_id, event.replaces)
        if cause is None and (replaces is None or event.row.redacted_by is not None):
            continue
        said: dict[str, Any] = orjson.loads(event.row.client_json)["unsigned"]
        said |= unsigned_of_state(replaces)
        if cause is not None:
            said["redacted_because"] = client_event(left.get(cause.event_id, cause))
        texts[event_id] = (client_json(pdu, said), federation_json(pdu))
    return texts


def _relations(found: _Found) -> list[NewRelation]:
    """What events say by `m.relates_to` that are a part of the room."""
    relations = []
    for event in found.events:
        relation = relation_of(event.row.pdu.content)
        if relation is not None and event.rejected is None and event.pdu.event_id not in found.redactions.redacted:
            relations.append(NewRelation(event.row.event_nid, relation.event_id, relation.rel_type, relation.key))
    return relations
