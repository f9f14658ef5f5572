"""The room directory of this server: aliases, and which rooms are listed in public.

https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from homeserver.config.schema import DirectoryConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, InvalidParam, NotFound, Unknown
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import RoomAlias, RoomId, ServerName, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.alias_lookup import AliasLookup
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.create import new_alias
from homeserver.services.rooms.drafts import CurrentState, Draft
from homeserver.services.rooms.server_access import ServerAccess
from storage.aliases import AliasRow, delete_alias, find_alias, insert_alias, list_aliases_of_room
from storage.database import Connection, Database
from storage.discovery import find_rooms, list_servers
from storage.memberships import find_membership
from storage.published_rooms import is_published, publish_room, unpublish_room
from storage.room_heads import find_head
from storage.rooms import get_room

_SERVERS_MAX: Final = 100
_CANONICAL_ALIAS: Final[StateKey] = ("m.room.canonical_alias", "")


@dataclass(frozen=True, slots=True)
class _WithoutAlias:
    """Composes the canonical alias event without an alias that is gone; nothing if it does not name the alias."""

    sender: UserId
    alias: RoomAlias

    def __call__(self, state: CurrentState) -> Sequence[Draft]:
        event = state.find(_CANONICAL_ALIAS)
        content = {} if event is None else dict(event.content)
        alternatives = content.get("alt_aliases")
        if content.get("alias") == self.alias:
            del content["alias"]
        if isinstance(alternatives, list) and self.alias in alternatives:
            content["alt_aliases"] = [each for each in alternatives if each != self.alias]
        if event is None or content == event.content:
            return ()
        return (Draft(type=_CANONICAL_ALIAS[0], sender=self.sender, state_key="", content=content),)


@dataclass(frozen=True, slots=True)
class ResolvedAlias:
    """Where an alias points to, and servers through which the room can be joined."""

    room_id: RoomId
    servers: Sequence[ServerName]


class RoomDirectory:
    """Makes, resolves and removes aliases, and lists rooms in public."""

    def __init__(
        self,
        *,
        db: Database,
        access: RoomAccess,
        server_access: ServerAccess,
        clock: Clock,
        server_name: ServerName,
        config: DirectoryConfig,
        aliases: AliasLookup,
        appender: Appender,
    ) -> None:
        self._db = db
        self._access = access
        self._server_access = server_access
        self._clock = clock
        self._server_name = server_name
        self._config = config
        self._aliases = aliases
        self._appender = appender

    async def set_alias(self, requester: Requester, alias: RoomAlias, room_id: RoomId) -> None:
        """Points a new alias of this server to a room that the requester is in.

        Raises:
            InvalidParam: it is no alias of this server, or has a wrong form.
            Forbidden: the requester is not in the room.
            Unknown: there is such an alias already (409).
        """
        self._check_own(alias)
        new_alias(alias.localpart, self._server_name)
        async with self._db.connection() as conn:
            await self._access.require_joined(conn, requester.user_id, room_id)
            is_new = await insert_alias(
                conn, alias, room_id=room_id, creator=requester.user_id, created_ts=self._clock.now_ms()
            )
        if not is_new:
            raise Unknown(f"Room alias {alias} already exists", status=409)

    async def resolve(self, alias: RoomAlias) -> ResolvedAlias:
        """Where an alias of this or another server points to. For its own ones, this server stands first in the list.

        Raises:
            NotFound: there is no such alias.
        """
        if alias.server_name == self._server_name:
            return await self.resolve_own(alias)
        return ResolvedAlias(*await self._aliases.resolve(alias))

    async def resolve_own(self, alias: RoomAlias) -> ResolvedAlias:
        """Where an alias of this server points to, with the servers in the room that may take part, this one first.

        Raises:
            InvalidParam: it is no alias of this server.
            NotFound: there is no such alias.
        """
        self._check_own(alias)
        async with self._db.connection() as conn:
            room_id = (await _get_alias(conn, alias)).room_id
            servers = await list_servers(conn, room_id, limit=_SERVERS_MAX)
            others = [each for each in servers if each != self._server_name]
            others = [*await self._server_access.allowed_among(conn, others, room_id)]
            is_resident = bool(await find_rooms(conn, [room_id], user_id=None))
        return ResolvedAlias(room_id, [self._server_name, *others] if is_resident else others)

    async def delete_alias(self, requester: Requester, alias: RoomAlias) -> None:
        """Removes an alias; also from the room's canonical alias, if the requester may change that.

        Raises:
            InvalidParam: it is no alias of this server.
            NotFound: there is no such alias.
            Forbidden: the requester has not made it, and may not change the room's canonical alias either.
        """
        self._check_own(alias)
        async with self._db.connection() as conn:
            row = await _get_alias(conn, alias)
            if not (
                requester.is_admin
                or row.creator == requester.user_id
                or await _may_name(conn, row.room_id, requester.user_id)
            ):
                raise Forbidden("You may not delete this alias")
            if not await delete_alias(conn, alias):
                raise NotFound(f"Room alias {alias} not found")
        with suppress(Forbidden):
            await self._appender.append(
                row.room_id, _WithoutAlias(requester.user_id, alias), slots=(_CANONICAL_ALIAS, POWER_LEVELS)
            )

    async def aliases_of(self, requester: Requester, room_id: RoomId) -> Sequence[RoomAlias]:
        """This server's aliases of a room, for those who see it as it is now.

        Raises:
            Forbidden: the requester is not in the room, and not everybody may read it.
        """
        async with self._db.connection() as conn:
            readable = await self._access.require_readable(conn, requester.user_id, room_id)
            if readable.departure is not None:
                raise Forbidden("You are not in the room")
            return await list_aliases_of_room(conn, room_id)

    async def is_listed(self, room_id: RoomId) -> bool:
        """Whether the public directory lists a room.

        Raises:
            NotFound: there is no such room here.
        """
        async with self._db.connection() as conn:
            await get_room(conn, room_id)
            return await is_published(conn, room_id)

    async def set_listed(self, requester: Requester, room_id: RoomId, *, listed: bool) -> None:
        """Lists a room in the public directory, or no longer.

        Raises:
            NotFound: there is no such room here.
            Forbidden: the requester may not.
        """
        async with self._db.connection() as conn:
            await get_room(conn, room_id)
            if not requester.is_admin:
                if listed and self._config.publish == "admins":
                    raise Forbidden("Only administrators may list rooms in the directory")
                if not await _may_name(conn, room_id, requester.user_id):
                    raise Forbidden("You may not list this room, or take it off the list")
            if listed:
                await publish_room(conn, room_id)
            else:
                await unpublish_room(conn, room_id)

    def _check_own(self, alias: RoomAlias) -> None:
        if alias.server_name != self._server_name:
            raise InvalidParam("The alias is not one of this server")


async def _get_alias(conn: Connection, alias: RoomAlias) -> AliasRow:
    row = await find_alias(conn, alias)
    if row is None:
        raise NotFound(f"Room alias {alias} not found")
    return row


async def _may_name(conn: Connection, room_id: RoomId, user_id: UserId) -> bool:
    """Whether a user is in a room and may change its canonical alias."""
    membership = await find_membership(conn, room_id=room_id, user_id=user_id)
    if membership is None or membership.membership != "join":
        return False
    head = await find_head(conn, room_id, (CREATE, POWER_LEVELS))
    create = None if head is None else head.find(CREATE)
    if head is None or create is None:
        return False
    levels = PowerLevels.in_force(head.find(POWER_LEVELS), create)
    return levels.user_level(user_id) >= levels.event_level("m.room.canonical_alias", is_state=True)
