"""Profiles: display name, picture, time zone and any further fields that clients agree on.

https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from homeserver.config.schema import ProfileConfig
from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    KeyTooLarge,
    NotFound,
    ProfileTooLarge,
)
from homeserver.core.ids import MxcUri, ServerName, UserId
from homeserver.core.requester import Requester
from homeserver.core.text import is_storable
from homeserver.services.ports import RemoteProfiles
from storage import memberships, profiles, users
from storage.bus.base import Bus
from storage.database import Database
from storage.server_memberships import shares_room_with_server

DISPLAYNAME: Final = "displayname"
AVATAR_URL: Final = "avatar_url"
TIME_ZONE: Final = "m.tz"

PROFILE_BYTES_MAX: Final = 64 * 1024
NAME_BYTES_MAX: Final = 255
# Names stay when their fields are removed, so that others learn of that.
NAMES_MAX: Final = 300
DISPLAYNAME_CHARACTERS_MAX: Final = 256
_CUSTOM_NAME: Final = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII)


class Profiles:
    """Reads and changes profiles."""

    def __init__(
        self, *, db: Database, bus: Bus, server_name: ServerName, config: ProfileConfig, remote: RemoteProfiles
    ) -> None:
        self._db = db
        self._bus = bus
        self._server_name = server_name
        self._config = config
        self._remote = remote

    async def get(self, requester: Requester | None, user_id: UserId) -> Mapping[str, Any]:
        """All fields of a user's profile; values are JSON, ready to be sent.

        Raises:
            NotFound: there is no such user.
            Forbidden: the operator does not let this requester look.
        """
        await self._check_lookup(requester, user_id)
        if user_id.server_name != self._server_name:
            return await self._remote.query_profile(user_id)
        async with self._db.connection() as conn:
            fields = (await profiles.list_profiles(conn, [user_id])).get(user_id)
            if fields is None and not await users.list_existing(conn, [user_id]):
                raise NotFound("There is no profile of this user")
        return {name: orjson.Fragment(value) for name, value in (fields or {}).items()}

    async def get_field(self, requester: Requester | None, user_id: UserId, name: str) -> Any:
        """One field, as JSON ready to be sent.

        Raises:
            NotFound: there is no such user, or no such field.
            Forbidden: the operator does not let this requester look.
        """
        await self._check_lookup(requester, user_id)
        if user_id.server_name != self._server_name:
            return (await self._remote.query_profile(user_id, field=name))[name]
        async with self._db.connection() as conn:
            value = await profiles.find_field(conn, user_id=user_id, name=name)
        if value is None:
            raise NotFound("There is no such field in the profile of this user")
        return orjson.Fragment(value)

    async def for_server(self, origin: ServerName, user_id: UserId, *, name: str | None = None) -> Mapping[str, Any]:
        """A local user's profile, or only one field of it, for another server; values are JSON, ready to be sent.

        COMPAT(Synapse, 1.163): it asks for the display name and then for the picture, and is content with neither if
        one is answered with 404. So those two are left out of the answer where they are not set.

        Raises:
            InvalidParam: it is no user of this server.
            Forbidden: the operator does not let this server look.
            NotFound: there is no such user, or no such field.
        """
        if user_id.server_name != self._server_name:
            raise InvalidParam("Not a user of this server")
        if not self._config.lookup_by_servers:
            raise Forbidden("Profiles of this server are not told to other servers")
        async with self._db.connection() as conn:
            if self._config.lookup_only_in_shared_rooms and not (
                await profiles.is_in_public_room(conn, user_id)
                or await shares_room_with_server(conn, user_id=user_id, server_name=origin)
            ):
                raise Forbidden("Only servers that share a room with this user may see its profile")
            fields = (await profiles.list_profiles(conn, [user_id])).get(user_id)
            if fields is None and not await users.list_existing(conn, [user_id]):
                raise NotFound("There is no profile of this user")
        wanted = fields or {}
        if name is not None:
            if name not in wanted and name not in (DISPLAYNAME, AVATAR_URL):
                raise NotFound("There is no such field in the profile of this user")
            wanted = {each: value for each, value in wanted.items() if each == name}
        return {each: orjson.Fragment(value) for each, value in wanted.items()}

    async def set_field(self, requester: Requester, user_id: UserId, name: str, value: Any) -> None:
        """Sets one's own field; an empty display name or picture removes it.

        Raises:
            Forbidden, GuestAccessForbidden: it may not be changed by this requester.
            KeyTooLarge, InvalidParam, BadJson: the name or the value is wrong.
            ProfileTooLarge: the profile would have more than 64 KiB.
        """
        self._check_change(requester, user_id, name)
        _check_value(name, value)
        if value == "" and name in (DISPLAYNAME, AVATAR_URL):
            await self._remove(user_id, name)
        else:
            await self.write(user_id, {name: value})

    async def remove_field(self, requester: Requester, user_id: UserId, name: str) -> None:
        """Removes one's own field, if it is there; raises as `set_field` for the name."""
        self._check_change(requester, user_id, name)
        await self._remove(user_id, name)

    async def write(self, user_id: UserId, values: Mapping[str, Any]) -> None:
        """Sets fields without asking who wants it, for administrators; None of a display name or picture removes it.

        Raises:
            InvalidParam, BadJson: a value is wrong.
            ProfileTooLarge: the profile would have more than 64 KiB.
        """
        for name, value in values.items():
            if value is None and name in (DISPLAYNAME, AVATAR_URL):
                await self._remove(user_id, name)
                continue
            _check_value(name, value)
            encoded = encode_canonical(value).decode()
            async with self._db.transaction() as conn:
                await users.find_user_locked(conn, user_id)
                size = await profiles.get_size_without(conn, user_id=user_id, name=name)
                size_bytes = size.size_bytes + len(name.encode()) + len(encoded.encode()) + 4
                if size_bytes > PROFILE_BYTES_MAX or (size.names >= NAMES_MAX and not size.known):
                    raise ProfileTooLarge("The profile would be too large")
                position = await profiles.upsert_fields(conn, user_id=user_id, values={name: encoded})
            if position is not None:
                await self._bus.wake({f"user:{user_id}"}, position)

    async def _remove(self, user_id: UserId, name: str) -> None:
        async with self._db.connection() as conn:
            position = await profiles.remove_fields(conn, user_id=user_id, name=name)
        if position is not None:
            await self._bus.wake({f"user:{user_id}"}, position)

    async def _check_lookup(self, requester: Requester | None, user_id: UserId) -> None:
        if requester is None:
            if not self._config.lookup_without_login:
                raise Forbidden("Profiles of this server are only for users")
        elif requester.user_id == user_id or requester.is_admin:
            return
        if not self._config.lookup_only_in_shared_rooms:
            return
        async with self._db.connection() as conn:
            if await profiles.is_in_public_room(conn, user_id):
                return
            if requester is None or not await memberships.shares_room(
                conn, user_id=requester.user_id, other_user_id=user_id
            ):
                raise Forbidden("Only those who share a room with this user may see its profile")

    def _check_change(self, requester: Requester, user_id: UserId, name: str) -> None:
        if requester.user_id != user_id:
            raise Forbidden("Users change only their own profile")
        if requester.is_guest and name != DISPLAYNAME:
            raise GuestAccessForbidden("Guests may only change their display name")
        if len(name.encode()) > NAME_BYTES_MAX:
            raise KeyTooLarge(f"The name of a profile field has at most {NAME_BYTES_MAX} bytes")
        if not _CUSTOM_NAME.fullmatch(name):
            raise InvalidParam("The name of a profile field holds only a-z, 0-9 and . _ -")
        unchangeable = (name == DISPLAYNAME and not self._config.displayname_changes) or (
            name == AVATAR_URL and not self._config.avatar_url_changes
        )
        if unchangeable:
            raise Forbidden("This field cannot be changed here")


def _check_value(name: str, value: Any) -> None:
    """Checks the fields that the specification defines."""
    if name in (DISPLAYNAME, AVATAR_URL, TIME_ZONE) and not isinstance(value, str):
        raise BadJson(f"{name} must be a string")
    if name == DISPLAYNAME and (len(value) > DISPLAYNAME_CHARACTERS_MAX or not is_storable(value)):
        raise InvalidParam(f"A display name has at most {DISPLAYNAME_CHARACTERS_MAX} characters, and no NUL character")
    if name == AVATAR_URL and value:
        MxcUri.parse(value)
    if name == TIME_ZONE and len(value) > NAME_BYTES_MAX:
        raise InvalidParam("Not a time zone")
