"""Who may read what of a room: gates for whole rooms, and the history visibility of single events.

A room that may not be read and a room that does not exist are refused alike.

https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.visibility import EventVisibility, HistoryVisibility, visible_to_user
from homeserver.services.rooms.pruning import prune
from homeserver.services.rooms.state_values import StateValues
from storage import memberships
from storage.database import Connection
from storage.events import StoredEvent, list_events
from storage.memberships import MembershipRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.users import list_erased

HISTORY_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")
_OPEN_TO_MEMBERS: Final = frozenset({None, HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE})


@dataclass(frozen=True, slots=True)
class ReadableRoom:
    """A room that a user may read, and up to when.

    Attributes:
        membership: the user's; None if it has none and reads the room because everybody may.
        departure: the event by which the user left, where its sight ends; None if the user sees the room as it is now.
        state_id: the snapshot of the state that the user sees: the current one, or that before `departure`.
        is_partial: not all members of the room are known yet.
    """

    room: RoomRow
    membership: str | None
    departure: StoredEvent | None
    state_id: int
    is_partial: bool


@dataclass(frozen=True, slots=True)
class VisibleEvents:
    """Those of some events that a user may see.

    Attributes:
        events: in the order in which they were asked about.
        memberships: the user's membership at each of them (after it, if it is the user's own member event).
    """

    events: Sequence[StoredEvent] = ()
    memberships: Mapping[EventId, str] = field(default_factory=dict)


class RoomAccess:
    """Answers who may read what. It reads on the caller's connection."""

    def __init__(self, *, states: StateStore, values_max: int = 50_000) -> None:
        """Takes the store of states, and how many memberships and history visibilities are kept in memory."""
        self._values = StateValues(states=states, cache_name="visibility_values", values_max=values_max)

    async def require_joined(self, conn: Connection, user_id: UserId, room_id: RoomId) -> MembershipRow:
        """The membership of a user who is in a room now.

        Raises:
            Forbidden: the user is not, or there is no such room.
        """
        membership = await memberships.find_membership(conn, room_id=room_id, user_id=user_id)
        if membership is None or membership.membership != "join":
            raise Forbidden("You are not in the room")
        return membership

    async def require_readable(self, conn: Connection, user_id: UserId, room_id: RoomId) -> ReadableRoom:
        """A room that a user may read: is in it, was in it (then up to leaving), or everybody may.

        Raises:
            Forbidden: the user may not, has forgotten the room, or there is no such room.
        """
        found = await memberships.find_room_for_user(conn, room_id=room_id, user_id=user_id)
        if found is None:
            raise Forbidden("You are not in the room")
        room, row = found.room, found.membership
        membership = None if row is None else row.membership
        if room.state_id is not None and (membership == "join" or await self.is_world_readable(conn, room)):
            return ReadableRoom(room, membership, None, room.state_id, found.is_partial)
        if row is not None and membership in ("leave", "ban") and not row.forgotten:
            departure = await self._departure(conn, row)
            if departure is not None and departure.state_id is not None:
                return ReadableRoom(room, membership, departure, departure.state_id, found.is_partial)
        raise Forbidden("You are not in the room")

    async def _departure(self, conn: Connection, row: MembershipRow) -> StoredEvent | None:
        """The event by which a user who was in a room left it; None if it was never in it."""
        event_nid = await memberships.find_departure(conn, room_nid=row.room_nid, user_id=row.user_id)
        events = [] if event_nid is None else await list_events(conn, [event_nid])
        return events[0] if events else None

    async def is_world_readable(self, conn: Connection, room: RoomRow) -> bool:
        """Whether everybody may read a room as it is now."""
        if room.state_id is None:
            return False
        values = await self._values.at_slots(conn, [room.state_id], [HISTORY_VISIBILITY])
        return values.get((room.state_id, HISTORY_VISIBILITY)) == HistoryVisibility.WORLD_READABLE

    async def filter_visible(
        self, conn: Connection, user_id: UserId, events: Sequence[StoredEvent]
    ) -> Sequence[StoredEvent]:
        """Those of some events, of any rooms, that a user may see."""
        return (await self.visible(conn, user_id, events)).events

    async def visible(self, conn: Connection, user_id: UserId, events: Sequence[StoredEvent]) -> VisibleEvents:
        """Those of some events, of any rooms, that a user may see, and the user's membership at each.

        Content of users who have had themselves erased is shown only to those who were in the room when it was sent.
        """
        accepted = [event for event in events if event.is_accepted and event.state_id is not None]
        if not accepted:
            return VisibleEvents()
        own_slot = member_slot(user_id)
        state_ids = {event.state_id for event in accepted if event.state_id is not None}
        values = await self._values.at_slots(conn, state_ids, [HISTORY_VISIBILITY, own_slot])
        stays = await self._stays(conn, user_id, {event.room_nid for event in accepted})
        erased = await list_erased(conn, list({event.sender for event in accepted}))
        held = {
            state_id: (values.get((state_id, HISTORY_VISIBILITY)), values.get((state_id, own_slot)) or None)
            for state_id in state_ids
        }
        seen: list[StoredEvent] = []
        at_events: dict[EventId, str] = {}
        strangers: list[StoredEvent] = []
        for event in accepted:
            visibility, before = held[event.state_id or 0]
            after, stay = before, stays[event.room_nid]
            is_decisive = (event.type, event.state_key) in (own_slot, HISTORY_VISIBILITY)
            # Of all else, whoever is in the room now sees what its history visibility opens to its members.
            if is_decisive or visibility not in _OPEN_TO_MEMBERS or not stay.is_joined:
                at_event = _visibility_of(event, user_id, visibility, before)
                if not visible_to_user(at_event, joined_later=stay.joined_after(event)):
                    continue
                after = at_event.membership_after
            seen.append(event)
            at_events[event.event_id] = after or "leave"
            if event.sender in erased and "join" not in (before, after):
                strangers.append(event)
        pruned = await prune(conn, strangers)
        return VisibleEvents([pruned.get(event.event_nid, event) for event in seen], at_events)

    async def _stays(self, conn: Connection, user_id: UserId, room_nids: Collection[int]) -> dict[int, "_Stay"]:
        current = await memberships.list_memberships_in(conn, user_id, room_nids)
        past = [room_nid for room_nid in room_nids if room_nid not in current or current[room_nid].membership != "join"]
        joins = await memberships.last_joins(conn, user_id, past) if past else {}
        return {
            room_nid: _Stay(
                is_joined=room_nid in current and current[room_nid].membership == "join",
                last_join=None if room_nid in current and current[room_nid].forgotten else joins.get(room_nid),
            )
            for room_nid in room_nids
        }


@dataclass(frozen=True, slots=True)
class _Stay:
    """Whether a user is in a room, and else where in its history it last joined."""

    is_joined: bool
    last_join: int | None

    def joined_after(self, event: StoredEvent) -> bool:
        """Whether the user joined at some time after an event."""
        if self.is_joined:
            return True
        return self.last_join is not None and event.topological is not None and event.topological < self.last_join


def _visibility_of(
    event: StoredEvent, user_id: UserId, visibility: str | None, membership: str | None
) -> EventVisibility:
    # Only of these is the content looked at; the others need not be parsed.
    is_decisive = event.type in ("m.room.history_visibility", "m.room.member")
    return EventVisibility.of_event(
        event_type=event.type,
        state_key=event.state_key,
        content=event.content if is_decisive else {},
        user_id=user_id,
        visibility=HistoryVisibility.SHARED if visibility is None else HistoryVisibility(visibility),
        membership=membership,
    )
