"""How the state of rooms changed in a window, as far as a timeline does not tell it.

A state is a mapping of slots to events, both as integers. Whole states are compared only where their snapshots differ,
and only in rooms whose state can have changed.

https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import UserId
from homeserver.core.pdu import StateKey
from homeserver.services.sync.membership import SyncedRoom
from homeserver.services.sync.request import SyncWindow
from homeserver.services.sync.timeline import Timeline
from storage import timelines
from storage.database import Connection
from storage.events import list_events
from storage.state import Snapshot, StateStore


@dataclass(frozen=True, slots=True)
class StateDelta:
    """What may have to be told of a room's state; slots and events are integers.

    Attributes:
        since: the state at the window's start; None if the client cannot know it.
        before: the state before the timeline's first event.
        after: the state after its last event, but for the entry that the reader's leaving made.
        untold: what the client does not have and the timeline does not bring.
        changed: what differs between the state at the window's two ends; all, if the room is new to the client.
    """

    since: Snapshot | None
    before: Snapshot
    after: Snapshot
    untold: Mapping[int, int] = field(default_factory=dict)
    changed: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ids:
    """The snapshots of a room at the window's start (None if it is not known), before the timeline, and at the end."""

    since_id: int | None
    before_id: int
    after_id: int


async def read_deltas(
    conn: Connection,
    states: StateStore,
    user_id: UserId,
    rooms: Sequence[SyncedRoom],
    window: SyncWindow,
    shown: Mapping[int, Timeline],
    *,
    changed: Collection[int],
    use_state_after: bool,
) -> Mapping[int, StateDelta]:
    """The changes of those rooms that the reader was in, by `room_nid`.

    Args:
        shown: the timelines.
        changed: where the state may have changed in the window; elsewhere it is as it is before the timeline.
    """
    departures = await _departures(conn, rooms)
    ids = await _snapshot_ids(conn, rooms, window, shown, changed, departures)
    wanted = {
        each for of_room in ids.values() for each in (of_room.since_id, of_room.before_id, of_room.after_id) if each
    }
    snapshots = await states.load_many(conn, wanted)
    own_slot: StateKey = member_slot(user_id)
    own_slot_id = (await states.find_slots(conn, [own_slot])).get(own_slot) if departures else None
    return {
        room.room_nid: _delta(
            room,
            None if (of_room := ids[room.room_nid]).since_id is None else snapshots[of_room.since_id],
            snapshots[of_room.before_id],
            snapshots[of_room.after_id],
            own_slot_id=own_slot_id,
            timeline=shown.get(room.room_nid),
            use_state_after=use_state_after,
        )
        for room in rooms
        if room.room_nid in ids
    }


async def _departures(conn: Connection, rooms: Sequence[SyncedRoom]) -> Mapping[int, int]:
    """The snapshots before the events by which rooms were left."""
    events = await list_events(conn, [room.departure_nid for room in rooms if room.departure_nid])
    return {event.room_nid: event.state_id for event in events if event.state_id is not None}


async def _snapshot_ids(
    conn: Connection,
    rooms: Sequence[SyncedRoom],
    window: SyncWindow,
    shown: Mapping[int, Timeline],
    changed: Collection[int],
    departures: Mapping[int, int],
) -> Mapping[int, _Ids]:
    asked = [room.room_nid for room in rooms if room.is_fresh or not room.is_joined or room.room_nid in changed]
    stored = await timelines.states_between(conn, asked, since=window.since, upto=window.upto)
    ids = {}
    for room in rooms:
        timeline = shown.get(room.room_nid)
        first_id = timeline.events[0].state_id if timeline and timeline.events else None
        at_ends = stored.get(room.room_nid)
        if at_ends is None:
            if first_id is not None:
                ids[room.room_nid] = _Ids(first_id, first_id, first_id)
            continue
        after_id = at_ends.after_id if room.is_joined else departures.get(room.room_nid)
        if after_id is not None:
            ids[room.room_nid] = _Ids(at_ends.before_id if room.is_known else None, first_id or after_id, after_id)
    return ids


def _delta(
    room: SyncedRoom,
    since: Snapshot | None,
    before: Snapshot,
    after: Snapshot,
    *,
    own_slot_id: int | None,
    timeline: Timeline | None,
    use_state_after: bool,
) -> StateDelta:
    leaving = {own_slot_id: room.event_nid} if own_slot_id is not None and not room.is_joined and room.event_nid else {}
    changed = {**_changes(None if room.is_new else since, after), **leaving}
    known = None if room.is_fresh else since
    if use_state_after:
        return StateDelta(since, before, after, {**_changes(known, after), **leaving}, changed)
    in_timeline = {event.event_nid for event in timeline.events} if timeline else set()
    untold = dict(_changes(known, before))
    # Not in the timeline: filtered out of it, or brought by the resolution of a fork.
    later = {**_changes(before, after), **leaving}
    untold.update((slot_id, event_nid) for slot_id, event_nid in later.items() if event_nid not in in_timeline)
    held: Mapping[int, int] = known or {}
    untold = {
        slot_id: event_nid
        for slot_id, event_nid in untold.items()
        if event_nid not in in_timeline and held.get(slot_id) != event_nid
    }
    return StateDelta(since, before, after, untold, changed)


def _changes(old: Snapshot | None, new: Snapshot) -> Mapping[int, int]:
    """The entries that a newer state has and an older one has not; what has become empty cannot be told."""
    if old is None:
        return new.entries()
    if old.state_id == new.state_id:
        return {}
    return {slot_id: event_nid for slot_id, event_nid in new.changes_since(old).items() if event_nid is not None}
