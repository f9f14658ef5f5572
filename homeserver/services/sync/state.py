"""The state sections of a sync: of what changed in the state of rooms, that which the client is to be told.

https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.filters import RoomEventFilter
from homeserver.core.ids import UserId
from homeserver.core.pdu import StateKey
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.request import SyncRequest, SyncWindow
from homeserver.services.sync.sent_members import Device, SentMembers
from homeserver.services.sync.state_delta import StateDelta, read_deltas
from homeserver.services.sync.timeline import Timeline, passes
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.partial_rooms import list_completed
from storage.state import StateStore

_MEMBER: Final = "m.room.member"
_NAMING: Final = frozenset({_MEMBER, "m.room.name", "m.room.canonical_alias"})


@dataclass(frozen=True, slots=True)
class RoomStates:
    """How the states of the rooms of a response changed, and the names of all slots that play a role in it."""

    deltas: Mapping[int, StateDelta]
    names: Mapping[int, StateKey]

    def renamed(self, rooms: Sequence[SyncedRoom]) -> Sequence[SyncedRoom]:
        """Those of the rooms where it may have changed who is in it or what it is called."""
        return [room for room in rooms if room.is_fresh or any(kind in _NAMING for kind, _ in self._changed(room))]

    def changed_members(self, rooms: Sequence[SyncedRoom]) -> Sequence[tuple[int, UserId]]:
        """The members that changed in rooms that the client knows, each with the room's `room_nid`."""
        return [
            (room.room_nid, UserId(state_key))
            for room in rooms
            if not room.is_new
            for kind, state_key in self._changed(room)
            if kind == _MEMBER
        ]

    def _changed(self, room: SyncedRoom) -> Sequence[StateKey]:
        delta = self.deltas.get(room.room_nid)
        return [] if delta is None else [self.names[slot_id] for slot_id in delta.changed]


class StateSections:
    """Builds the state sections of many rooms at once."""

    def __init__(self, *, states: StateStore, sent_members: SentMembers) -> None:
        self._states = states
        self._sent_members = sent_members

    async def compare(
        self,
        conn: Connection,
        request: SyncRequest,
        rooms: Sequence[SyncedRoom],
        window: SyncWindow,
        shown: Mapping[int, Timeline],
        *,
        changed: Collection[int],
    ) -> RoomStates:
        """Finds what changed; `changed` says in which rooms it can have, `shown` are their timelines."""
        lazily = request.filter.room.state.lazy_load_members
        concerned = [
            room
            for room in rooms
            if room.is_fresh or not room.is_joined or room.room_nid in changed or (lazily and room.room_nid in shown)
        ]
        deltas = await read_deltas(
            conn,
            self._states,
            request.requester.user_id,
            concerned,
            window,
            shown,
            changed=changed,
            use_state_after=request.use_state_after,
        )
        slot_ids = {
            slot_id for delta in deltas.values() for slots in (delta.untold, delta.changed) for slot_id in slots
        }
        return RoomStates(deltas, await self._states.slot_names(conn, slot_ids))

    async def read(
        self,
        conn: Connection,
        request: SyncRequest,
        rooms: Sequence[SyncedRoom],
        window: SyncWindow,
        shown: Mapping[int, Timeline],
        states: RoomStates,
        heroes: Mapping[int, Sequence[UserId]],
    ) -> Mapping[int, Sequence[StoredEvent]]:
        """The state events by `room_nid`; rooms without any are absent."""
        event_filter = request.filter.room.state
        told: dict[int, Mapping[int, int]] = {
            room.room_nid: states.deltas[room.room_nid].untold
            for room in rooms
            if room.room_nid in states.deltas and event_filter.allows_room(room.room_id)
        }
        names = states.names
        if event_filter.lazy_load_members:
            completed = await list_completed(
                conn, [room_nid for room_nid, untold in told.items() if untold], since=window.since, upto=window.upto
            )
            people = {
                room.room_nid: {*_people(request, room, shown, heroes), *completed.get(room.room_nid, ())}
                for room in rooms
                if room.room_nid in told
            }
            slot_ids = await self._states.find_slots(
                conn, {member_slot(user_id) for wanted in people.values() for user_id in wanted}
            )
            names = {**names, **{slot_id: slot for slot, slot_id in slot_ids.items()}}
            wanted = {
                room_nid: {slot_ids[slot] for slot in map(member_slot, user_ids) if slot in slot_ids}
                for room_nid, user_ids in people.items()
            }
            told = self._lazily(request, window, rooms, states.deltas, shown, wanted, names, completed=completed.keys())
        return await _load(conn, told, names, event_filter)

    def _lazily(
        self,
        request: SyncRequest,
        window: SyncWindow,
        rooms: Sequence[SyncedRoom],
        deltas: Mapping[int, StateDelta],
        shown: Mapping[int, Timeline],
        wanted: Mapping[int, Collection[int]],
        names: Mapping[int, StateKey],
        *,
        completed: Collection[int],
    ) -> dict[int, Mapping[int, int]]:
        """What is told with lazy loading, where the member events at some slots are `wanted`.

        Members that were there all the time, and came to be known in the window, are `completed` rooms' own business.
        """
        device: Device = (request.requester.user_id, request.requester.device_id)
        since = None if window.is_initial else window.since
        confirmed = self._sent_members.confirmed(device, since=since)
        self._sent_members.forget_rooms(device, {room.room_nid for room in rooms if room.is_new})
        told: dict[int, Mapping[int, int]] = {}
        sent: dict[int, int] = {}
        for room in rooms:
            if room.room_nid not in wanted:
                continue
            in_timeline = _members_shown(shown.get(room.room_nid))
            told[room.room_nid] = _told_lazily(
                request,
                room,
                deltas[room.room_nid],
                wanted[room.room_nid],
                names,
                in_timeline=in_timeline,
                confirmed=confirmed,
                is_completed=room.room_nid in completed,
            )
            beside = {nid for slot_id, nid in told[room.room_nid].items() if names[slot_id][0] == _MEMBER}
            sent |= dict.fromkeys(in_timeline | beside, room.room_nid)
        self._sent_members.note(device, sent, since=since, upto=window.upto)
        return told


def _told_lazily(
    request: SyncRequest,
    room: SyncedRoom,
    delta: StateDelta,
    wanted: Collection[int],
    names: Mapping[int, StateKey],
    *,
    in_timeline: Set[int],
    confirmed: Set[int],
    is_completed: bool,
) -> Mapping[int, int]:
    """What is untold of a room without members whom nobody needs now, and with those that the device may not know."""
    known = delta.since
    source, told = (delta.after, frozenset[int]()) if request.use_state_after else (delta.before, in_timeline)
    if room.is_fresh or request.filter.room.state.include_redundant_members:
        confirmed = frozenset()
    members = {
        slot_id: event_nid
        for slot_id in wanted
        if (event_nid := source.get(slot_id)) is not None and event_nid not in told and event_nid not in confirmed
    }
    untold = {
        slot_id: event_nid
        for slot_id, event_nid in delta.untold.items()
        # What has changed since the client last heard is told whoever speaks. Of a room that it does not know, only
        # those are told who matter now, and so of one whose members this server did not all know when the window began.
        if names[slot_id][0] != _MEMBER
        or slot_id in wanted
        or (known is not None and known.get(slot_id) != event_nid and not (is_completed and slot_id not in known))
    }
    return members | untold


def _members_shown(timeline: Timeline | None) -> set[int]:
    """The member events in a timeline."""
    return {event.event_nid for event in timeline.events if event.type == _MEMBER} if timeline else set()


def _people(
    request: SyncRequest,
    room: SyncedRoom,
    shown: Mapping[int, Timeline],
    heroes: Mapping[int, Sequence[UserId]],
) -> Collection[UserId]:
    """Those whose member events lazy loading keeps: senders, heroes, and oneself in a fresh room."""
    timeline = shown.get(room.room_nid)
    people = {event.sender for event in timeline.events} if timeline else set()
    people.update(heroes.get(room.room_nid, ()))
    if room.is_fresh:
        people.add(request.requester.user_id)
    return people


async def _load(
    conn: Connection,
    told: Mapping[int, Mapping[int, int]],
    names: Mapping[int, StateKey],
    event_filter: RoomEventFilter,
) -> Mapping[int, Sequence[StoredEvent]]:
    """Loads the events of all rooms at once, those whose type the filter refuses left out before."""
    wanted = {
        event_nid
        for slots in told.values()
        for slot_id, event_nid in slots.items()
        if event_filter.matches_type(names[slot_id][0])
    }
    sections: dict[int, list[StoredEvent]] = {}
    for event in await list_events(conn, wanted):
        if passes(event_filter, event):
            sections.setdefault(event.room_nid, []).append(event)
    return sections
