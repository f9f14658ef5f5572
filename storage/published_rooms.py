"""Which rooms the public directory lists, by the server itself or by a network of an application service."""

from typing import Final

from homeserver.core.ids import RoomId
from storage.database import Connection

INSERT_PUBLISHED_ROOM: Final = """
    INSERT INTO published_rooms (room_id, appservice_id, network_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""


async def publish_room(conn: Connection, room_id: RoomId, *, appservice_id: str = "", network_id: str = "") -> None:
    """Lists a room in the public directory, or in that of an application service's network."""
    await conn.execute(INSERT_PUBLISHED_ROOM, room_id, appservice_id, network_id)


DELETE_PUBLISHED_ROOM: Final = """
    DELETE FROM published_rooms WHERE room_id = $1 AND appservice_id = $2 AND network_id = $3
"""


async def unpublish_room(conn: Connection, room_id: RoomId, *, appservice_id: str = "", network_id: str = "") -> None:
    """Takes a room off the public directory, or off that of an application service's network."""
    await conn.execute(DELETE_PUBLISHED_ROOM, room_id, appservice_id, network_id)


SELECT_IS_PUBLISHED: Final = "SELECT EXISTS (SELECT FROM published_rooms WHERE room_id = $1 AND appservice_id = '')"


async def is_published(conn: Connection, room_id: RoomId) -> bool:
    """Whether the public directory lists a room."""
    return bool(await conn.fetchval(SELECT_IS_PUBLISHED, room_id))


UPDATE_PUBLISHED_ROOM: Final = """
    WITH moved AS (DELETE FROM published_rooms WHERE room_id = $1 RETURNING appservice_id, network_id)
    INSERT INTO published_rooms (room_id, appservice_id, network_id)
    SELECT $2, appservice_id, network_id FROM moved ON CONFLICT DO NOTHING
"""


async def move_published_room(conn: Connection, *, from_room_id: RoomId, to_room_id: RoomId) -> None:
    """Lists a room wherever another was listed, in its place."""
    await conn.execute(UPDATE_PUBLISHED_ROOM, from_room_id, to_room_id)
