"""Summaries of single rooms.

https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from collections.abc import Mapping
from typing import Any

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomAlias, RoomId
from homeserver.core.requester import Requester
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.services.rooms.discovery import discover
from storage.database import Database


class RoomSummaries:
    """Tells what a room is, to those who may know of it."""

    def __init__(self, *, db: Database, directory: RoomDirectory) -> None:
        self._db = db
        self._directory = directory

    async def summary(self, requester: Requester | None, room: RoomId | RoomAlias) -> Mapping[str, Any]:
        """The summary of a room, in the form of the client-server API.

        Args:
            requester: who asks; None for somebody without an account.
            room: its id, or an alias of it.

        Raises:
            NotFound: there is no such room here, or the requester may not know of it.
        """
        room_id = (await self._directory.resolve(room)).room_id if isinstance(room, RoomAlias) else room
        user_id = None if requester is None else requester.user_id
        async with self._db.connection() as conn:
            found = (await discover(conn, [room_id], user_id=user_id)).get(room_id)
        if found is None:
            raise NotFound("Room not found")
        body = found.json()
        if found.membership is not None:
            body["membership"] = found.membership
        return body
