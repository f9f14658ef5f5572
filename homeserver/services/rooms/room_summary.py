"""Summaries of single rooms, also of such that this server is not in.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomAlias, RoomId, ServerName
from homeserver.core.requester import Requester
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.services.rooms.discovery import discover
from homeserver.services.rooms.remote_hierarchies import RemoteHierarchies, list_findable
from storage.database import Database
from storage.memberships import find_membership


class RoomSummaries:
    """Tells what a room is, to those who may know of it."""

    def __init__(self, *, db: Database, directory: RoomDirectory, remote: RemoteHierarchies) -> None:
        self._db = db
        self._directory = directory
        self._remote = remote

    async def summary(
        self, requester: Requester | None, room: RoomId | RoomAlias, *, via: Sequence[ServerName] = ()
    ) -> Mapping[str, Any]:
        """The summary of a room, in the form of the client-server API.

        Args:
            requester: who asks; None for somebody without an account, for whom no other server is asked.
            room: its id, or an alias of it.
            via: servers that are said to be in the room.

        Raises:
            NotFound: there is no such room, or the requester may not know of it.
        """
        if isinstance(room, RoomAlias):
            resolved = await self._directory.resolve(room)
            room_id, via = resolved.room_id, [*via, *resolved.servers]
        else:
            room_id = room
        user_id = None if requester is None else requester.user_id
        async with self._db.connection() as conn:
            rooms = await discover(conn, [room_id], user_id=user_id)
        if found := rooms.found.get(room_id):
            body = found.json()
            if found.membership is not None:
                body["membership"] = found.membership
            return body
        if requester is None or room_id in rooms.refused:
            raise NotFound("Room not found")
        return await self._elsewhere(requester, room_id, via)

    async def _elsewhere(
        self, requester: Requester, room_id: RoomId, servers: Sequence[ServerName]
    ) -> Mapping[str, Any]:
        """What other servers say of a room that this one is not in; where nobody names any, the one that made it."""
        made_by = room_id.server_name
        via = list(dict.fromkeys(servers)) or ([] if made_by is None else [made_by])
        space = await self._remote.find(room_id, via)
        if space is None:
            raise NotFound("Room not found")
        async with self._db.connection() as conn:
            if room_id not in await list_findable(conn, [space.summary], user_id=requester.user_id):
                raise NotFound("Room not found")
            membership = await find_membership(conn, room_id=room_id, user_id=requester.user_id)
        return space.summary.body if membership is None else {**space.summary.body, "membership": membership.membership}
