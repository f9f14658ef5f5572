"""Which rooms belong into a sync, and into which of its sections: join, invite, knock or leave.

What held at the window's two ends is told by the log of changes, so later changes do not matter.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_rooms
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeserver.core.filters import RoomFilter
from homeserver.core.ids import RoomId, UserId
from homeserver.services.sync.interests import Interests
from homeserver.services.sync.request import SyncWindow
from storage import timelines
from storage.database import Connection
from storage.events import list_events
from storage.memberships import list_departures, list_memberships_in
from storage.timelines import MembershipChange

_GONE = ("leave", "ban")


@dataclass(frozen=True, slots=True)
class SyncedRoom:
    """A room that belongs into the response.

    Attributes:
        membership: the user's, at the window's end.
        event_nid: the event that set it; 0 if there is none.
        departure_nid: the event by which the user left, where its sight of the room ends; None if it is in the room or
            has never been in it.
        is_known: the client may know the room, for the user was in it at the window's start.
        is_new: the room is told anew, for the user was not in it throughout the window.
        is_fresh: the room's whole state is wanted: it is new, or the client asked for `full_state`.
    """

    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int
    departure_nid: int | None = None
    is_known: bool = True
    is_new: bool = False
    is_fresh: bool = False

    @property
    def is_joined(self) -> bool:
        """Whether the user is in the room."""
        return self.membership == "join"

    @property
    def was_seen(self) -> bool:
        """Whether the user was in the room at some time, so that it may have seen something of it."""
        return self.is_joined or self.departure_nid is not None


@dataclass(frozen=True, slots=True)
class SyncedRooms:
    """The rooms of a response by section."""

    joined: Sequence[SyncedRoom] = ()
    invited: Sequence[SyncedRoom] = ()
    knocked: Sequence[SyncedRoom] = ()
    left: Sequence[SyncedRoom] = ()


async def initial_rooms(
    conn: Connection, user_id: UserId, window: SyncWindow, room_filter: RoomFilter, interests: Interests
) -> SyncedRooms:
    """The rooms of a first sync: where the user is, is invited or knocks, and if the filter says so those it left."""
    held = await timelines.list_memberships_at(conn, user_id, position=window.upto, with_left=room_filter.include_leave)
    left = [each for each in held if each.membership in _GONE and room_filter.include_leave]
    departures = await list_departures(conn, user_id, [each.room_nid for each in left]) if left else {}
    rooms = [
        SyncedRoom(
            room_nid=each.room_nid,
            room_id=each.room_id,
            membership=each.membership,
            event_nid=each.event_nid,
            departure_nid=departures.get(each.room_nid),
            is_known=False,
            is_new=True,
            is_fresh=True,
        )
        for each in held
        if each.membership not in _GONE or room_filter.include_leave
    ]
    return await _sections(conn, user_id, rooms, room_filter, interests)


async def changed_rooms(
    conn: Connection,
    user_id: UserId,
    window: SyncWindow,
    room_filter: RoomFilter,
    interests: Interests,
    *,
    active: Collection[int],
    has_moved: bool,
    is_full: bool,
) -> SyncedRooms:
    """The rooms of a sync that goes on from another one.

    Args:
        active: where something happened, by `room_nid`; rooms among them that the user is not in are passed over.
        has_moved: whether the user's memberships may have changed in the window.
        is_full: all joined rooms are told, with their whole state (`full_state`).
    """
    within: dict[int, list[MembershipChange]] = {}
    if has_moved:
        for change in await timelines.list_membership_changes(conn, user_id, since=window.since):
            if change.position < window.upto:
                within.setdefault(change.room_nid, []).append(change)
    at_start = await timelines.memberships_before(conn, user_id, within.keys(), position=window.since)
    rooms = [
        _moved(changes, was_joined=room_nid in at_start and at_start[room_nid].membership == "join", is_full=is_full)
        for room_nid, changes in within.items()
    ]
    stayed = interests.joined.keys() if is_full else active
    rooms += [
        SyncedRoom(room_nid, interests.joined[room_nid], "join", event_nid=0, is_fresh=is_full)
        for room_nid in stayed
        if room_nid in interests.joined and room_nid not in within
    ]
    return await _sections(conn, user_id, rooms, room_filter, interests)


def _moved(changes: Sequence[MembershipChange], *, was_joined: bool, is_full: bool) -> SyncedRoom:
    """A room in which the user's membership changed in the window, in this order."""
    last = changes[-1]
    is_joined = last.membership == "join"
    joins = [index for index, change in enumerate(changes) if change.membership == "join"]
    departure_nid = None
    if not is_joined and (joins or was_joined):
        departure_nid = changes[joins[-1] + 1 if joins else 0].event_nid
    stayed = was_joined and (not is_joined or len(joins) == len(changes))
    return SyncedRoom(
        room_nid=last.room_nid,
        room_id=last.room_id,
        membership=last.membership,
        event_nid=last.event_nid,
        departure_nid=departure_nid,
        is_known=was_joined,
        is_new=not stayed,
        is_fresh=not stayed or is_full,
    )


async def _sections(
    conn: Connection, user_id: UserId, rooms: Sequence[SyncedRoom], room_filter: RoomFilter, interests: Interests
) -> SyncedRooms:
    """Deals the rooms out, without those that the filter, the user's forgetting or its ignoring somebody hides."""
    wanted = [room for room in rooms if room_filter.allows_room(room.room_id)]
    left = [room for room in wanted if room.membership in _GONE]
    if left:
        memberships = await list_memberships_in(conn, user_id, [room.room_nid for room in left])
        left = [room for room in left if not (room.room_nid in memberships and memberships[room.room_nid].forgotten)]
    return SyncedRooms(
        joined=[room for room in wanted if room.is_joined],
        invited=await _welcome(conn, [room for room in wanted if room.membership == "invite"], interests.ignored),
        knocked=[room for room in wanted if room.membership == "knock"],
        left=left,
    )


async def _welcome(
    conn: Connection, invited: Sequence[SyncedRoom], ignored: Collection[UserId]
) -> Sequence[SyncedRoom]:
    """The invitations that do not come from ignored users."""
    if not invited or not ignored:
        return invited
    senders: Mapping[int, UserId] = {
        event.event_nid: event.sender for event in await list_events(conn, [room.event_nid for room in invited])
    }
    return [room for room in invited if senders.get(room.event_nid) not in ignored]
