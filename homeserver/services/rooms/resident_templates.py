"""Templates for the member events with which users of other servers join, leave or knock, as make_join and the like
answer them.

A template is what the event would be if it were made here, without id, hashes and signature. The other server makes
its own event of it, so nothing is stored, and all is checked again when that event comes.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Collection, Mapping
from typing import Any

from homeserver.core.clock import Clock
from homeserver.core.errors import Forbidden, IncompatibleRoomVersion
from homeserver.core.event_auth.auth_events import member_slot
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.services.remote import EventTemplate
from homeserver.services.rooms.member_events import begin_member_event, read_member_head
from homeserver.services.rooms.partial_state import PartialStates
from homeserver.services.rooms.residence import require_resident
from homeserver.services.rooms.restricted_joins import authorise_join
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.room_heads import RoomHead


class ResidentTemplates:
    """Makes templates for users of other servers, in rooms that this server is in."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        server_name: ServerName,
        access: ServerAccess,
        partial_states: PartialStates,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._access = access
        self._partial_states = partial_states

    async def make_join(
        self, origin: ServerName, room_id: RoomId, user_id: UserId, *, versions: Collection[str]
    ) -> EventTemplate:
        """A template for a join.

        In restricted rooms it names the local user by whose right the other one joins.

        Args:
            origin: the server that asks.
            room_id: the room.
            user_id: the user who wants to join, of that server.
            versions: the room versions that the server supports.

        Raises:
            NotFound: this server is not in the room.
            IncompatibleRoomVersion: the room's version is none of those.
            UnableToAuthoriseJoin, UnableToGrantJoin: another server may be able to let the user in; see
                `authorise_join`.
            Forbidden: the user is not of that server or may not join, or the room keeps the server out.
        """
        await self._partial_states.settle(room_id)
        async with self._db.connection() as conn:
            await self._require(conn, origin, room_id, user_id, versions)
            head = await read_member_head(conn, room_id, [member_slot(user_id)])
            content: dict[str, Any] = {"membership": "join"}
            vouching = await authorise_join(conn, head, user_id, server_name=self._server_name)
            if vouching is not None:
                content["join_authorised_via_users_server"] = vouching
                head = await read_member_head(conn, room_id, [member_slot(user_id), member_slot(vouching)])
            return await self._template(conn, head, room_id, user_id, content)

    async def make_leave(self, origin: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """A template for leaving a room, rejecting an invitation or taking back a knock.

        Raises:
            NotFound: this server is not in the room.
            Forbidden: the user is not of that server or has nothing to leave, or the room keeps the server out.
        """
        await self._partial_states.settle(room_id)
        async with self._db.connection() as conn:
            await self._require(conn, origin, room_id, user_id, versions=None)
            head = await read_member_head(conn, room_id, [member_slot(user_id)])
            return await self._template(conn, head, room_id, user_id, {"membership": "leave"})

    async def make_knock(
        self, origin: ServerName, room_id: RoomId, user_id: UserId, *, versions: Collection[str]
    ) -> EventTemplate:
        """A template for a knock; arguments as for `make_join`.

        Raises:
            NotFound: this server is not in the room.
            IncompatibleRoomVersion: the other server does not support the room's version.
            Forbidden: the user is not of that server or may not knock, or the room keeps the server out.
        """
        await self._partial_states.settle(room_id)
        async with self._db.connection() as conn:
            await self._require(conn, origin, room_id, user_id, versions)
            head = await read_member_head(conn, room_id, [member_slot(user_id)])
            return await self._template(conn, head, room_id, user_id, {"membership": "knock"})

    async def _require(
        self,
        conn: Connection,
        origin: ServerName,
        room_id: RoomId,
        user_id: UserId,
        versions: Collection[str] | None,
    ) -> None:
        room = await require_resident(conn, self._access, origin, room_id)
        if versions is not None and room.room_version.identifier not in versions:
            raise IncompatibleRoomVersion(
                "Your homeserver does not support the features required to enter this room",
                room_version=room.room_version.identifier,
            )
        if user_id.server_name != origin:
            raise Forbidden("The user is not one of your server")

    async def _template(
        self, conn: Connection, head: RoomHead, room_id: RoomId, user_id: UserId, content: Mapping[str, Any]
    ) -> EventTemplate:
        """The template for a member event of a user about itself, if it may be sent in the room as it is."""
        builder = await begin_member_event(
            conn, head, room_id, sender=user_id, target=user_id, content=content, now_ms=self._clock.now_ms()
        )
        return EventTemplate(room_version=head.room_version, event={**builder.template(), "origin": self._server_name})
