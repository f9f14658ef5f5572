"""Setting and reading the state of rooms.

https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import NotFound, UserSuspended
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, member_slot
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.services.rooms.access import ReadableRoom, RoomAccess
from homeserver.services.rooms.alias_lookup import AliasLookup
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.content_rules import check_state, named_aliases
from homeserver.services.rooms.drafts import CurrentState, Draft
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.state_consequences import GUEST_ACCESS, departure
from homeserver.services.rooms.state_texts import StateTexts
from storage.database import Connection, Database
from storage.events import EventCache, StoredEvent
from storage.memberships import list_joined_guests
from storage.room_heads import find_head
from storage.rooms import find_room
from storage.state import StateStore
from storage.state_events import list_state_texts

_CANONICAL_ALIAS: Final = "m.room.canonical_alias"


class _SetState:
    """Sets one entry of the state, and what follows from that; see `drafts.Compose`."""

    def __init__(self, draft: Draft, consequences: Sequence[Draft]) -> None:
        self._draft = draft
        self._consequences = consequences
        self._slot: StateKey = (draft.type, draft.state_key or "")
        self._encoded = encode_canonical(draft.content)
        self.unchanged: EventId | None = None

    def __call__(self, state: CurrentState) -> Sequence[Draft]:
        current = state.find(self._slot)
        if (
            current is not None
            and current.sender == self._draft.sender
            and encode_canonical(current.content) == self._encoded
        ):
            self.unchanged = current.event_id
            return ()
        self.unchanged = None
        return (self._draft, *self._consequences)


class RoomState:
    """The state of rooms, as users set and read it."""

    def __init__(
        self,
        *,
        db: Database,
        appender: Appender,
        memberships: Memberships,
        access: RoomAccess,
        aliases: AliasLookup,
        states: StateStore,
        texts: StateTexts,
        events: EventCache,
        server_name: ServerName,
    ) -> None:
        self._db = db
        self._appender = appender
        self._memberships = memberships
        self._access = access
        self._aliases = aliases
        self._states = states
        self._texts = texts
        self._events = events
        self._server_name = server_name

    async def set(
        self,
        requester: Requester,
        room_id: RoomId,
        slot: StateKey,
        content: Mapping[str, Any],
        *,
        origin_server_ts: int | None = None,
    ) -> EventId:
        """Sets an entry of the state. What is so already stays, and nothing is sent.

        Args:
            requester: who sets it.
            room_id: the room.
            slot: event type and state key.
            content: of the event.
            origin_server_ts: milliseconds since the epoch; None for now.

        Returns:
            The event that stands there now.

        Raises:
            Forbidden: the user may not.
            BadAlias: an alias does not point to the room.
            BadJson: the content is wrong for the event type.
            InvalidParam: likewise, in one of its values.
        """
        event_type, state_key = slot
        check_state(event_type, state_key, content, room_id=room_id, server_name=self._server_name)
        if event_type == "m.room.member":
            return await self._memberships.set(requester, room_id, UserId.parse(state_key), content)
        if requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")
        if slot == (_CANONICAL_ALIAS, ""):
            await self._check_aliases(room_id, content)
        draft = Draft(
            type=event_type,
            sender=requester.user_id,
            state_key=state_key,
            content=content,
            origin_server_ts=origin_server_ts,
        )
        change = _SetState(draft, await self._consequences(room_id, slot, content))
        slots = (slot, CREATE, POWER_LEVELS, member_slot(requester.user_id))
        added = await self._appender.append(room_id, change, slots=slots)
        if change.unchanged is not None:
            return change.unchanged
        return added.events[0].event_id

    async def get_all(self, requester: Requester, room_id: RoomId) -> Sequence[str]:
        """All state events, as JSON texts, as the user may see the room: as it is now, or as it was when the user left.

        Raises:
            Forbidden: the user may not read the room.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            if readable.departure is None:
                texts = await self._texts.of_room(conn, readable.room)
            else:
                texts = await list_state_texts(conn, (await self.entries(conn, readable)).values())
        return [text.client_json for text in texts]

    async def get(self, requester: Requester, room_id: RoomId, slot: StateKey) -> StoredEvent:
        """One state event, as the user may see the room.

        Raises:
            Forbidden: the user may not read the room.
            NotFound: there is none.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            departure = readable.departure
            if departure is not None and slot == (departure.type, departure.state_key):
                return departure
            slot_ids = await self._states.find_slots(conn, [slot])
            snapshot = await self._states.load(conn, readable.state_id)
            event_nid = snapshot.get(slot_ids[slot]) if slot in slot_ids else None
            events = [] if event_nid is None else await self._events.load(conn, [event_nid])
        if not events:
            raise NotFound("The room has no such state")
        return events[0]

    async def entries(self, conn: Connection, readable: ReadableRoom) -> Mapping[int, int]:
        """The state that a user sees: events by slot, both as numbers."""
        snapshot = await self._states.load(conn, readable.state_id)
        departure = readable.departure
        if departure is None:
            return snapshot.entries()
        slot: StateKey = (departure.type, departure.state_key or "")
        slot_ids = await self._states.find_slots(conn, [slot])
        return {**snapshot.entries(), slot_ids[slot]: departure.event_nid}

    async def _check_aliases(self, room_id: RoomId, content: Mapping[str, Any]) -> None:
        """Checks those aliases that are named anew; those that were there may have drifted."""
        async with self._db.connection() as conn:
            head = await find_head(conn, room_id, [(_CANONICAL_ALIAS, "")])
        current = None if head is None else head.find((_CANONICAL_ALIAS, ""))
        old = () if current is None else _all_names(current.content)
        await self._aliases.check_point_to([alias for alias in named_aliases(content) if alias not in old], room_id)

    async def _consequences(self, room_id: RoomId, slot: StateKey, content: Mapping[str, Any]) -> list[Draft]:
        """What goes along with a change: guests leave a room that is closed to them (see `StateConsequences`)."""
        if slot != GUEST_ACCESS or content.get("guest_access") == "can_join":
            return []
        async with self._db.connection() as conn:
            room = await find_room(conn, room_id)
            guests = [] if room is None else await list_joined_guests(conn, room.room_nid)
        return [departure(guest) for guest in guests]


def _all_names(content: Mapping[str, Any]) -> set[object]:
    alternatives = content.get("alt_aliases")
    names = alternatives if isinstance(alternatives, list) else []
    return {name for name in (content.get("alias"), *names) if isinstance(name, str)}
