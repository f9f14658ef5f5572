"""Rooms in which this server can act for the users of others: it is in there, and the other server is not shut out."""

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomId, ServerName
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection
from storage.partial_rooms import is_partial
from storage.resident_rooms import find_resident_room
from storage.rooms import RoomRow


async def require_resident(conn: Connection, access: ServerAccess, origin: ServerName, room_id: RoomId) -> RoomRow:
    """A room that this server is in, for a server that wants to get its users in or out.

    Raises:
        NotFound: this server is not in the room, or does not know all its members yet; another can help better.
        Forbidden: the room's access control list keeps the other server out.
    """
    room = await find_resident_room(conn, room_id)
    if room is None or await is_partial(conn, room.room_nid):
        raise NotFound("Unknown room")
    await access.require_allowed(conn, origin, room_id)
    return room
