"""Brings changed display names and avatars into the member events of the rooms that a user is in.

It follows the stream of profiles. A change that was handled before changes nothing when it is handled again.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import orjson

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import RoomId, UserId
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.drafts import CurrentState, Draft
from homeserver.services.stream.follower import Batch
from storage.database import Database
from storage.memberships import list_rooms_of_user
from storage.profiles import list_changed

NAME: Final = "profile_updates"
KEYS: Final = frozenset(("user:",))

_FIELDS: Final = frozenset(("displayname", "avatar_url"))
_CHANGES_MAX: Final = 1000
_ROOMS_AT_ONCE: Final = 4
# What was true of the join, and is not of a change of profile.
_DROPPED: Final = frozenset(("reason", "join_authorised_via_users_server", "is_direct", "third_party_invite"))


class ProfileUpdates:
    """The consumer of a `Follower`."""

    def __init__(self, *, db: Database, appender: Appender) -> None:
        self._db = db
        self._appender = appender

    async def handle(self, batch: Batch) -> int:
        """Tells the rooms of those users whose profiles have changed."""
        async with self._db.connection() as conn:
            changes = await list_changed(conn, since=batch.since, upto=batch.upto, limit=_CHANGES_MAX)
        profiles: dict[UserId, dict[str, str | None]] = {}
        for change in changes:
            if change.name in _FIELDS:
                profiles.setdefault(change.user_id, {})[change.name] = _text(change.value)
        for user_id, profile in profiles.items():
            await self._tell_rooms(user_id, profile)
        if len(changes) < _CHANGES_MAX:
            return batch.upto
        # The last transaction may not be complete in the list; but what fills a whole list has to be left behind.
        last = changes[-1].position
        return last if last > batch.since else last + 1

    async def _tell_rooms(self, user_id: UserId, profile: Mapping[str, str | None]) -> None:
        async with self._db.connection() as conn:
            rooms = [row.room_id for row in await list_rooms_of_user(conn, user_id, ("join",))]
        for start in range(0, len(rooms), _ROOMS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for room_id in rooms[start : start + _ROOMS_AT_ONCE]:
                    group.create_task(self._tell_room(room_id, user_id, profile))

    async def _tell_room(self, room_id: RoomId, user_id: UserId, profile: Mapping[str, str | None]) -> None:
        try:
            await self._appender.append(room_id, partial(_updated, user_id, profile), slots=[member_slot(user_id)])
        except Forbidden:
            # The user has been removed meanwhile.
            return


def _text(value: str | None) -> str | None:
    decoded = None if value is None else orjson.loads(value)
    return decoded if isinstance(decoded, str) else None


def _updated(user_id: UserId, profile: Mapping[str, str | None], state: CurrentState) -> Sequence[Draft]:
    """The member event with the changed fields; nothing if it says so already."""
    current = state.find(member_slot(user_id))
    if current is None or current.membership != "join":
        return ()
    if all(current.content.get(name) == value for name, value in profile.items()):
        return ()
    content: dict[str, Any] = {name: value for name, value in current.content.items() if name not in _DROPPED}
    content.update(profile)
    content = {name: value for name, value in content.items() if value is not None}
    return (Draft(type="m.room.member", sender=user_id, state_key=user_id, content=content),)
