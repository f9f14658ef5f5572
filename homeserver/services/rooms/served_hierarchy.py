"""Spaces and their direct children for other servers.

https://spec.matrix.org/v1.19/server-server-api/#spaces
"""

from dataclasses import replace
from typing import Final

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomId, ServerName
from homeserver.core.spaces import SPACE
from homeserver.services.remote import HierarchyAnswer
from homeserver.services.rooms.discovery import discover_for_server
from homeserver.services.rooms.space_children import CHILDREN_MAX, children_of_rows
from homeserver.services.rooms.space_tree import TreeRoom
from storage.database import Database
from storage.discovery import list_children

_EVENTS_MAX: Final = 5000


class ServedHierarchies:
    """Tells other servers of rooms that any of their users could join or read."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def hierarchy(self, origin: ServerName, room_id: RoomId, *, suggested_only: bool) -> HierarchyAnswer:
        """A room and, if it is a space, its direct children.

        Children that this server is not in are left out: it knows nothing of them.

        Raises:
            NotFound: there is no such room here, or the server may not know of it.
        """
        async with self._db.connection() as conn:
            rooms = await discover_for_server(conn, [room_id], server_name=origin)
            found = rooms.found.get(room_id)
            if found is None:
                raise NotFound("Room not found")
            room = TreeRoom(found.json())
            if found.summary.room_type == SPACE:
                events = await list_children(conn, [found.summary.room_nid], limit=_EVENTS_MAX)
                children = children_of_rows(events, suggested_only=suggested_only).get(found.summary.room_nid, ())
                room = replace(room, children=children[:CHILDREN_MAX])
            named = [child.room_id for child in room.children]
            below = await discover_for_server(conn, named, server_name=origin)
        return HierarchyAnswer(
            room=room.json(),
            children=[below.found[each].json() for each in named if each in below.found],
            inaccessible_children=[each for each in named if each in below.refused],
        )
