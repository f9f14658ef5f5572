"""Upgrading a room: another one of a newer version takes its place.

https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from homeserver.core.errors import Forbidden, NotFound, UserSuspended
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS, member_slot
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.core.room_versions import room_version_named
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import CurrentState, Draft
from homeserver.services.rooms.member_content import read_profiles
from homeserver.services.rooms.replacement import (
    COPIED,
    SPACE,
    SPACE_CHILD,
    OldRoom,
    Replacement,
    replacement_events,
)
from homeserver.services.rooms.succession import TOMBSTONE, RoomSuccession
from storage.aliases import move_aliases
from storage.database import Connection, Database
from storage.events import list_events
from storage.memberships import list_members
from storage.published_rooms import move_published_room
from storage.room_heads import RoomHead, find_head, list_slots_of_type

_CANONICAL_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")
_CHILDREN_MAX: Final = 1000
_BANS_MAX: Final = 1000
_RESTRICTED_LEVEL: Final = 50


class RoomUpgrades:
    """Replaces rooms by others."""

    def __init__(self, *, db: Database, appender: Appender, succession: RoomSuccession) -> None:
        self._db = db
        self._appender = appender
        self._succession = succession

    async def upgrade(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        new_version: str,
        additional_creators: Sequence[UserId] = (),
    ) -> RoomId:
        """Replaces a room; returns the new one.

        Args:
            requester: who does it, and becomes the new room's creator.
            room_id: the room.
            new_version: the version of the new room.
            additional_creators: its further creators, if its version has such.

        Raises:
            UnsupportedRoomVersion: this server does not know the version.
            NotFound: there is no such room here.
            Forbidden: the user may not send a tombstone to the room.
        """
        if requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")
        room_version = room_version_named(new_version)
        async with self._db.connection() as conn:
            old = await self._read(conn, requester, room_id)
            profile = (await read_profiles(conn, [requester.user_id]))[requester.user_id]
        others = tuple(user_id for user_id in dict.fromkeys(additional_creators) if user_id != requester.user_id)
        replacement = Replacement(
            creator=requester.user_id,
            room_version=room_version,
            additional_creators=others if room_version.creators_in_control else (),
            profile=profile,
        )
        if room_version.room_id_is_create_hash:
            new_room_id = await self._appender.create(room_version, replacement_events(old, replacement))
            await self._bury(requester, room_id, new_room_id)
        else:
            # The create event names the tombstone, so that comes first; that the rest is possible is tried before.
            new_room_id = self._appender.new_room_id()
            self._appender.try_create(room_version, replacement_events(old, replacement), room_id=new_room_id)
            last_event_id = await self._bury(requester, room_id, new_room_id)
            drafts = replacement_events(old, replace(replacement, last_event_id=last_event_id))
            await self._appender.create(room_version, drafts, room_id=new_room_id)
        await self._move(requester, room_id, new_room_id)
        return new_room_id

    async def _read(self, conn: Connection, requester: Requester, room_id: RoomId) -> OldRoom:
        """What the new room is made of.

        Raises:
            NotFound: there is no such room here.
            Forbidden: the user may not end it.
        """
        head = await find_head(conn, room_id, (CREATE, POWER_LEVELS, member_slot(requester.user_id), *COPIED))
        if head is None or head.state_id is None:
            raise NotFound("Unknown room")
        create, member = head.find(CREATE), head.find(member_slot(requester.user_id))
        if create is None or member is None or member.membership != "join":
            raise Forbidden("You are not in the room")
        levels_event = head.find(POWER_LEVELS)
        levels = PowerLevels.in_force(levels_event, create)
        if levels.user_level(requester.user_id) < levels.event_level(TOMBSTONE[0], is_state=True):
            raise Forbidden("You may not upgrade the room")
        copied = [(slot, pdu.content) for slot in COPIED if (pdu := head.find(slot)) is not None]
        if create.content.get("type") == SPACE:
            copied += await _children(conn, head, room_id)
        bans = await list_members(conn, head.room_nid, ("ban",))
        events = await list_events(conn, [row.event_nid for row in bans[:_BANS_MAX]])
        return OldRoom(
            create=create,
            levels=levels,
            levels_content=None if levels_event is None else levels_event.content,
            state=copied,
            bans=[(event.state_key or "", event.content) for event in events],
        )

    async def _bury(self, requester: Requester, room_id: RoomId, new_room_id: RoomId) -> EventId:
        """Sends the tombstone."""
        draft = Draft(
            type=TOMBSTONE[0],
            sender=requester.user_id,
            state_key=TOMBSTONE[1],
            content={"body": "This room has been replaced", "replacement_room": new_room_id},
        )
        added = await self._appender.append(room_id, lambda _: (draft,))
        return added.events[0].event_id

    async def _move(self, requester: Requester, room_id: RoomId, new_room_id: RoomId) -> None:
        """Moves what points to the old room, and closes that as far as the user may."""
        async with self._db.transaction() as conn:
            await move_aliases(conn, from_room_id=room_id, to_room_id=new_room_id)
            await move_published_room(conn, from_room_id=room_id, to_room_id=new_room_id)
        for compose, slot in ((_restricting, POWER_LEVELS), (_without_aliases, _CANONICAL_ALIAS)):
            try:
                await self._appender.append(room_id, partial(compose, requester.user_id), slots=(CREATE, slot))
            except Forbidden:
                continue
        async with self._db.connection() as conn:
            head = await find_head(conn, new_room_id, [CREATE])
        create = None if head is None else head.find(CREATE)
        if create is not None:
            await self._succession.follow(requester.user_id, create)


async def _children(conn: Connection, head: RoomHead, room_id: RoomId) -> list[tuple[StateKey, Mapping[str, Any]]]:
    """The children of a space; removed ones have no content."""
    slots = await list_slots_of_type(conn, head.room_nid, SPACE_CHILD, limit=_CHILDREN_MAX)
    children = await find_head(conn, room_id, slots)
    found = [] if children is None else [(slot, children.find(slot)) for slot in slots]
    return [(slot, pdu.content) for slot, pdu in found if pdu is not None and pdu.content.get("via")]


def _restricting(user_id: UserId, state: CurrentState) -> Sequence[Draft]:
    """Power levels with which ordinary members can neither send nor invite."""
    create, event = state.find(CREATE), state.find(POWER_LEVELS)
    if create is None or event is None:
        return ()
    levels = PowerLevels.in_force(event, create)
    level = max(_RESTRICTED_LEVEL, levels.named_level("users_default") + 1)
    raised = {name: level for name in ("events_default", "invite") if levels.named_level(name) < level}
    if not raised:
        return ()
    content = {**event.content, **raised}
    return (Draft(type=POWER_LEVELS[0], sender=user_id, state_key=POWER_LEVELS[1], content=content),)


def _without_aliases(user_id: UserId, state: CurrentState) -> Sequence[Draft]:
    """An empty canonical alias, if there is another."""
    event = state.find(_CANONICAL_ALIAS)
    if event is None or not event.content:
        return ()
    return (Draft(type=_CANONICAL_ALIAS[0], sender=user_id, state_key=_CANONICAL_ALIAS[1], content={}),)
