"""The gate of what is ephemeral in rooms: only those who are in a room tell it something."""

from homeserver.core.errors import Forbidden
from homeserver.core.ids import RoomId, UserId
from storage import memberships
from storage.database import Connection


async def require_joined(conn: Connection, room_id: RoomId, user_id: UserId) -> int:
    """The `room_nid` of a room that a user is joined to.

    Raises:
        Forbidden: the user is not, or there is no such room.
    """
    membership = await memberships.find_membership(conn, room_id=room_id, user_id=user_id)
    if membership is None or membership.membership != "join":
        raise Forbidden("You are not in the room")
    return membership.room_nid
