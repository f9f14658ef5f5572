"""What goes from a room to the one that replaces it: tags, push rules, direct chats, and this server's aliases.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeGuard

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.event_auth.auth_events import CREATE
from homeserver.core.ids import RoomId, UserId
from homeserver.core.pdu import Pdu, StateKey
from storage.account_data import find_content, get_content_locked, upsert_account_data
from storage.aliases import move_aliases
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.out_of_band import is_here
from storage.published_rooms import move_published_room
from storage.room_heads import find_head

TOMBSTONE: Final[StateKey] = ("m.room.tombstone", "")
_TAGS: Final = "m.tag"
_DIRECT: Final = "m.direct"


class RoomRules(Protocol):
    """The push rules of users, as far as they are about single rooms."""

    async def copy_room_rules(self, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> None:
        """Gives a user the rules about a room also for the room that replaces it."""
        ...


class RoomSuccession:
    """Takes users' own settings, and what points to a room, along to the one that replaces it."""

    def __init__(self, *, db: Database, bus: Bus, room_rules: RoomRules) -> None:
        self._db = db
        self._bus = bus
        self._room_rules = room_rules

    async def follow(self, user_id: UserId, create: Pdu) -> None:
        """Copies a local user's settings as it comes to a room, if that replaces another: both rooms must say so.

        Args:
            user_id: who comes.
            create: the create event of the room.
        """
        old_room_id, new_room_id = predecessor_of(create), create.room_id
        if old_room_id is None or not await self._is_replaced(old_room_id, new_room_id):
            return
        async with self._db.transaction() as conn:
            positions = [
                await _copy_tags(conn, user_id, old_room_id=old_room_id, new_room_id=new_room_id),
                await _copy_direct(conn, user_id, old_room_id=old_room_id, new_room_id=new_room_id),
            ]
        written = [position for position in positions if position is not None]
        if written:
            await self._bus.wake({f"user:{user_id}"}, max(written))
        await self._room_rules.copy_room_rules(user_id, old_room_id=old_room_id, new_room_id=new_room_id)

    async def hand_on(self, old_room_id: RoomId) -> None:
        """Moves what points to a room, as another server may have replaced it by one that this server is in."""
        async with self._db.connection() as conn:
            new_room_id = await _replacement_of(conn, old_room_id)
            head = await find_head(conn, new_room_id, [CREATE]) if new_room_id is not None else None
            here = new_room_id is not None and await is_here(conn, new_room_id)
        create = head.find(CREATE) if head is not None and here else None
        if create is not None and predecessor_of(create) == old_room_id:
            await self.move_pointers(create)

    async def move_pointers(self, create: Pdu) -> None:
        """Has the aliases of this server, and its directory, show a room in place of the one that it replaces.

        As with settings, both rooms must say so.

        Args:
            create: the create event of the room, which this server is in.
        """
        old_room_id, new_room_id = predecessor_of(create), create.room_id
        if old_room_id is None or not await self._is_replaced(old_room_id, new_room_id):
            return
        async with self._db.transaction() as conn:
            await move_aliases(conn, from_room_id=old_room_id, to_room_id=new_room_id)
            await move_published_room(conn, from_room_id=old_room_id, to_room_id=new_room_id)

    async def _is_replaced(self, old_room_id: RoomId, new_room_id: RoomId) -> bool:
        async with self._db.connection() as conn:
            return await _replacement_of(conn, old_room_id) == new_room_id


def predecessor_of(create: Pdu) -> RoomId | None:
    """The room that a room replaces, by its create event."""
    predecessor = create.content.get("predecessor")
    room_id = predecessor.get("room_id") if isinstance(predecessor, Mapping) else None
    return RoomId(room_id) if _is_room_id(room_id) else None


def _is_room_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith("!") and "\0" not in value


async def _replacement_of(conn: Connection, room_id: RoomId) -> RoomId | None:
    """The room that is to replace a room, by its tombstone."""
    head = await find_head(conn, room_id, [TOMBSTONE])
    tombstone = None if head is None else head.find(TOMBSTONE)
    named = None if tombstone is None else tombstone.content.get("replacement_room")
    return RoomId(named) if _is_room_id(named) else None


async def _copy_tags(conn: Connection, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> int | None:
    """Gives the new room the old one's tags, unless it has tags already."""
    old = await find_content(conn, user_id=user_id, room_id=old_room_id, type=_TAGS)
    if old is None or await find_content(conn, user_id=user_id, room_id=new_room_id, type=_TAGS) is not None:
        return None
    return await upsert_account_data(conn, user_id=user_id, room_id=new_room_id, type=_TAGS, content=old)


async def _copy_direct(conn: Connection, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> int | None:
    """Lists the new room as a direct chat wherever the old one is listed."""
    if await find_content(conn, user_id=user_id, room_id=None, type=_DIRECT) is None:
        return None
    stored = await get_content_locked(conn, user_id=user_id, room_id=None, type=_DIRECT)
    direct: dict[str, Any] = orjson.loads(stored)
    changed = {
        name: [*rooms, new_room_id] if _lists(rooms, old_room_id) and new_room_id not in rooms else rooms
        for name, rooms in direct.items()
    }
    if changed == direct:
        return None
    content = encode_canonical(changed).decode()
    return await upsert_account_data(conn, user_id=user_id, room_id=None, type=_DIRECT, content=content)


def _lists(rooms: object, room_id: RoomId) -> bool:
    return isinstance(rooms, list) and room_id in rooms
