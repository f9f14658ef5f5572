"""Which rooms belong into a sync, and into which of its sections: join, invite, knock or leave.

A membership may have changed after `upto`; what held at the window's two ends is told by the log of changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from homeserver.core.filters import RoomFilter
from homeserver.core.ids import RoomId, UserId
from homeserver.services.sync.request import SyncWindow
from storage import timelines
from storage.database import Connection
from storage.timelines import MembershipChange, RoomMembership

_NEVER = ""


@dataclass(frozen=True, slots=True)
class SyncedRoom:
    """A room that belongs into the response.

    Attributes:
        membership: the user's, at the window's end.
        event_nid: the event that set it.
        is_new: the client cannot know the room, for the user was not in it throughout the window.
        is_fresh: the room's whole state is wanted: it is new, or the client asked for `full_state`.
        was_joined: the user was in the room at some time up to the window's end, so that it may have seen it.
    """

    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int
    sender: UserId | None
    is_new: bool
    is_fresh: bool
    was_joined: bool


@dataclass(frozen=True, slots=True)
class SyncedRooms:
    """The rooms of a response by section, and who they are kept from."""

    joined: Sequence[SyncedRoom]
    invited: Sequence[SyncedRoom]
    knocked: Sequence[SyncedRoom]
    left: Sequence[SyncedRoom]


async def synced_rooms(
    conn: Connection,
    user_id: UserId,
    window: SyncWindow,
    room_filter: RoomFilter,
    *,
    ignored_users: frozenset[UserId],
    keep_fresh: bool,
) -> SyncedRooms:
    """Finds the rooms of a response.

    Args:
        ignored_users: whose invitations are not shown.
        keep_fresh: all joined rooms are told as if the client had never heard of them (`full_state`).
    """
    current = await timelines.list_memberships(conn, user_id)
    wanted = [membership for membership in current if room_filter.allows_room(membership.room_id)]
    changes = (
        await timelines.list_membership_changes(conn, user_id, since=window.since) if not window.is_initial else []
    )
    within: dict[int, list[MembershipChange]] = {}
    for change in changes:
        if change.position < window.upto:
            within.setdefault(change.room_nid, []).append(change)
    late = [membership.room_nid for membership in wanted if membership.position >= window.upto]
    at_end = await timelines.memberships_before(conn, user_id, late, position=window.upto)
    at_start = await timelines.memberships_before(conn, user_id, list(within), position=window.since)

    joined, invited, knocked, left = [], [], [], []
    for membership in wanted:
        room = _room_at_end(membership, at_end, window)
        if room is None:
            continue
        changed = within.get(room.room_nid, ())
        before = at_start.get(room.room_nid)
        room = _with_past(room, changed, before, window, keep_fresh=keep_fresh)
        is_news = window.is_initial or bool(changed)
        match room.membership:
            case "join":
                joined.append(room)
            case "invite" if is_news and room.sender not in ignored_users:
                invited.append(room)
            case "knock" if is_news:
                knocked.append(room)
            case "leave" | "ban" if not membership.forgotten:
                if changed or (window.is_initial and room_filter.include_leave):
                    left.append(room)
    return SyncedRooms(joined=joined, invited=invited, knocked=knocked, left=left)


def _room_at_end(
    membership: RoomMembership, at_end: Mapping[int, MembershipChange], window: SyncWindow
) -> SyncedRoom | None:
    """The room as it was at the window's end; None if the user had nothing to do with it yet."""
    if membership.position < window.upto:
        held, event_nid, sender = membership.membership, membership.event_nid, membership.sender
    else:
        change = at_end.get(membership.room_nid)
        if change is None:
            return None
        held, event_nid, sender = change.membership, change.event_nid, None
    return SyncedRoom(
        room_nid=membership.room_nid,
        room_id=membership.room_id,
        membership=held,
        event_nid=event_nid,
        sender=sender,
        is_new=window.is_initial,
        is_fresh=window.is_initial,
        was_joined=True,
    )


def _with_past(
    room: SyncedRoom,
    changed: Sequence[MembershipChange],
    before: MembershipChange | None,
    window: SyncWindow,
    *,
    keep_fresh: bool,
) -> SyncedRoom:
    """Adds what the room's past in the window says about what the client knows."""
    held_before = before.membership if before else _NEVER
    joined_before = not changed or held_before == "join"
    interrupted = any(change.membership != "join" for change in changed)
    is_new = window.is_initial or not joined_before or (interrupted and room.membership == "join")
    was_joined = window.is_initial or joined_before or any(change.membership == "join" for change in changed)
    return replace(room, is_new=is_new, is_fresh=is_new or keep_fresh, was_joined=was_joined)
