"""The state sections of a sync: what changed in a room's state that its timeline does not tell.

A state is a mapping of slots to events, both as integers. Whole states are compared only where their snapshots differ,
and events are loaded once for all rooms of the response.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.sent_members import SentMembers
from homeserver.services.sync.timeline import EMPTY_TIMELINE, Timeline, passes
from storage import timelines
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.state import Snapshot, StateStore

_MEMBER: Final = "m.room.member"


@dataclass(frozen=True, slots=True)
class _Ends:
    """A room's state at three moments.

    Attributes:
        known: what the client has, at the window's start; None for a room that is new to it.
        before: before the timeline's first event.
        after: after its last event, but for `leaving`.
        leaving: slot and event of the reader's leaving, for a room that was left.
    """

    known: Snapshot | None
    before: Snapshot
    after: Snapshot
    leaving: Mapping[int, int]


class StateSections:
    """Computes the state sections of many rooms at once."""

    def __init__(self, *, states: StateStore, sent_members: SentMembers) -> None:
        self._states = states
        self._sent_members = sent_members

    async def read(
        self,
        conn: Connection,
        request: SyncRequest,
        rooms: Sequence[SyncedRoom],
        window: SyncWindow,
        shown: Mapping[int, Timeline],
        heroes: Mapping[int, Sequence[UserId]],
    ) -> Mapping[int, list[StoredEvent]]:
        """The state events by room_nid; rooms without any are absent."""
        event_filter = request.filter.room.state
        ends = await self._ends(conn, request, rooms, window, shown)
        chosen = {
            room.room_nid: _chosen(ends[room.room_nid], shown.get(room.room_nid, EMPTY_TIMELINE), request)
            for room in rooms
            if room.room_nid in ends and event_filter.allows_room(room.room_id)
        }
        slot_ids = {slot_id for slots in chosen.values() for slot_id in slots}
        slots_of: Mapping[int, frozenset[int]] = {}
        if event_filter.lazy_load_members:
            slots_of = await self._member_slots(conn, request.requester, rooms, shown, heroes)
            slot_ids |= {slot_id for slots in slots_of.values() for slot_id in slots}
        names = await self._states.slot_names(conn, slot_ids)
        if event_filter.lazy_load_members:
            for room in rooms:
                if room.room_nid in chosen:
                    chosen[room.room_nid] = self._lazily(
                        request,
                        window,
                        room,
                        chosen[room.room_nid],
                        ends[room.room_nid],
                        slots_of[room.room_nid],
                        names,
                        shown.get(room.room_nid, EMPTY_TIMELINE),
                    )
        return await _load(conn, chosen, names, event_filter)

    async def _ends(
        self,
        conn: Connection,
        request: SyncRequest,
        rooms: Sequence[SyncedRoom],
        window: SyncWindow,
        shown: Mapping[int, Timeline],
    ) -> Mapping[int, _Ends]:
        stale = [room.room_nid for room in rooms if not room.is_fresh]
        known_ids = await timelines.states_at(conn, stale, position=window.since)
        joined = [room.room_nid for room in rooms if room.membership == "join"]
        after_ids = dict(await timelines.states_at(conn, joined, position=window.upto))
        left = [room for room in rooms if room.membership != "join" and room.was_joined]
        leaving = {event.room_nid: event for event in await list_events(conn, [room.event_nid for room in left])}
        after_ids |= {nid: event.state_id for nid, event in leaving.items() if event.state_id is not None}
        before_ids = {
            room_nid: timeline.events[0].state_id
            for room_nid, timeline in shown.items()
            if timeline.events and timeline.events[0].state_id is not None
        }
        states = await self._states.load_many(conn, {*known_ids.values(), *after_ids.values(), *before_ids.values()})
        leaving_slots = await self._leaving_slots(conn, request, leaving)
        return {
            room_nid: _Ends(
                known=states[known_ids[room_nid]] if room_nid in known_ids else None,
                before=states[before_ids.get(room_nid, after_id)],
                after=states[after_id],
                leaving=leaving_slots.get(room_nid, {}),
            )
            for room_nid, after_id in after_ids.items()
        }

    async def _leaving_slots(
        self, conn: Connection, request: SyncRequest, leaving: Mapping[int, StoredEvent]
    ) -> Mapping[int, Mapping[int, int]]:
        """The entries that the reader's leaving made."""
        if not leaving:
            return {}
        slot: StateKey = (_MEMBER, str(request.requester.user_id))
        slot_ids = await self._states.find_slots(conn, [slot])
        return {room_nid: {slot_ids[slot]: event.event_nid} for room_nid, event in leaving.items()}

    async def _member_slots(
        self,
        conn: Connection,
        requester: Requester,
        rooms: Sequence[SyncedRoom],
        shown: Mapping[int, Timeline],
        heroes: Mapping[int, Sequence[UserId]],
    ) -> Mapping[int, frozenset[int]]:
        """The slots of those members whose events lazy loading keeps: senders, heroes, and oneself in a fresh room."""
        people: dict[int, set[UserId]] = {}
        for room in rooms:
            wanted = {event.sender for event in shown.get(room.room_nid, EMPTY_TIMELINE).events}
            wanted.update(heroes.get(room.room_nid, ()))
            if room.is_fresh:
                wanted.add(requester.user_id)
            people[room.room_nid] = wanted
        slots = {(_MEMBER, str(user_id)) for wanted in people.values() for user_id in wanted}
        slot_ids = await self._states.find_slots(conn, slots)
        return {
            room_nid: frozenset(
                slot_ids[(_MEMBER, str(user_id))] for user_id in wanted if (_MEMBER, str(user_id)) in slot_ids
            )
            for room_nid, wanted in people.items()
        }

    def _lazily(
        self,
        request: SyncRequest,
        window: SyncWindow,
        room: SyncedRoom,
        chosen: Mapping[int, int],
        ends: _Ends,
        member_slots: frozenset[int],
        names: Mapping[int, StateKey],
        timeline: Timeline,
    ) -> Mapping[int, int]:
        """Drops the members that nobody needs now, and adds those who speak and are not known to the device."""
        device = (request.requester.user_id, request.requester.device_id)
        in_timeline = {event.event_nid for event in timeline.events}
        source = ends.after if request.use_state_after else ends.before
        speaking = {
            slot_id: source[slot_id]
            for slot_id in member_slots
            if slot_id in source and (request.use_state_after or source[slot_id] not in in_timeline)
        }
        known: set[int] = set()
        if not room.is_fresh and not request.filter.room.state.include_redundant_members:
            known = self._sent_members.known(device, room.room_nid, speaking.items(), since=window.since)
        kept = {
            slot_id: event_nid
            for slot_id, event_nid in chosen.items()
            # What changed in a gap is told whoever speaks; of a fresh room only those who matter now.
            if not room.is_fresh or names[slot_id][0] != _MEMBER or slot_id in member_slots
        }
        added = {slot_id: event_nid for slot_id, event_nid in speaking.items() if slot_id not in known}
        members = {slot_id: nid for slot_id, nid in (added | kept).items() if names[slot_id][0] == _MEMBER}
        self._sent_members.note(device, room.room_nid, members.items(), upto=window.upto)
        return added | kept


def _chosen(ends: _Ends, timeline: Timeline, request: SyncRequest) -> Mapping[int, int]:
    """The entries that differ from what the client has and that the timeline does not bring."""
    if request.use_state_after:
        return {**_changes(ends.known, ends.after), **ends.leaving}
    changed = _changes(ends.known, ends.before)
    in_timeline = {event.event_nid for event in timeline.events}
    for slot_id, event_nid in {**_changes(ends.before, ends.after), **ends.leaving}.items():
        # Not in the timeline: filtered out of it, or brought by the resolution of a fork.
        if event_nid not in in_timeline:
            changed[slot_id] = event_nid
    known: Mapping[int, int] = ends.known or {}
    return {slot_id: nid for slot_id, nid in changed.items() if nid not in in_timeline and known.get(slot_id) != nid}


def _changes(old: Snapshot | None, new: Snapshot) -> dict[int, int]:
    """The entries that a newer state has and an older one has not; what has become empty cannot be told."""
    if old is None:
        return dict(new.entries())
    if old.state_id == new.state_id:
        return {}
    return {slot_id: event_nid for slot_id, event_nid in new.changes_since(old).items() if event_nid is not None}


async def _load(
    conn: Connection,
    chosen: Mapping[int, Mapping[int, int]],
    names: Mapping[int, StateKey],
    event_filter: RoomEventFilter,
) -> Mapping[int, list[StoredEvent]]:
    """Loads the chosen events of all rooms at once, those whose type the filter refuses left out before."""
    wanted = {
        event_nid
        for slots in chosen.values()
        for slot_id, event_nid in slots.items()
        if event_filter.matches_type(names[slot_id][0])
    }
    events = await list_events(conn, wanted)
    sections: dict[int, list[StoredEvent]] = {}
    for event in events:
        if passes(event_filter, event):
            sections.setdefault(event.room_nid, []).append(event)
    return sections
