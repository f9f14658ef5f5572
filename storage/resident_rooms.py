"""Rooms as a server knows them that is in them: which they are, and who else is there.

A server is resident in a room as long as one of its users is joined to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, ServerName, UserId
from storage.database import Connection
from storage.rooms import RoomRow, find_room

SELECT_IS_RESIDENT: Final = "SELECT local_joined_members > 0 FROM room_summaries WHERE room_nid = $1"


async def find_resident_room(conn: Connection, room_id: RoomId) -> RoomRow | None:
    """A room that this server is in; None for rooms that it has left, is only invited to, or does not know."""
    room = await find_room(conn, room_id)
    if room is None or room.state_id is None or not await conn.fetchval(SELECT_IS_RESIDENT, room.room_nid):
        return None
    return room


@dataclass(frozen=True, slots=True)
class KnownMembership:
    """What this server knows of a user and a room.

    Attributes:
        is_resident: this server is in the room and knows all its members, so that its knowledge is up to date.
        is_joined: the user is joined to the room, or was when this server last knew.
    """

    is_resident: bool
    is_joined: bool


SELECT_KNOWN_MEMBERSHIPS: Final = """
    SELECT r.room_id, coalesce(m.membership = 'join', false) AS is_joined,
        s.local_joined_members > 0 AND NOT EXISTS (
            SELECT FROM partial_rooms p WHERE p.room_nid = r.room_nid
        ) AS is_resident
    FROM rooms r JOIN room_summaries s USING (room_nid)
    LEFT JOIN memberships m ON m.room_nid = r.room_nid AND m.user_id = $1
    WHERE r.room_id = ANY ($2::text[])
"""


async def list_known_memberships(
    conn: Connection, user_id: UserId, room_ids: Collection[str]
) -> Mapping[str, KnownMembership]:
    """What is known of a user in some rooms; rooms that this server has never heard of are absent."""
    rows = await conn.fetch(SELECT_KNOWN_MEMBERSHIPS, user_id, list(room_ids))
    return {row["room_id"]: KnownMembership(row["is_resident"], row["is_joined"]) for row in rows}


SELECT_JOINED_SERVERS: Final = """
    SELECT DISTINCT substr(user_id, strpos(user_id, ':') + 1) AS server_name
    FROM memberships WHERE room_nid = $1 AND membership = 'join' AND user_id <> $2
    ORDER BY server_name
"""


async def list_joined_servers(conn: Connection, room_nid: int, *, without: UserId) -> list[ServerName]:
    """The servers of the users who are joined to a room, one of them not counted."""
    return [ServerName(row["server_name"]) for row in await conn.fetch(SELECT_JOINED_SERVERS, room_nid, without)]


SELECT_WITHOUT_MEMBERS: Final = """
    SELECT event_nid FROM events
    WHERE event_nid = ANY ($1::bigint[])
        AND (type <> 'm.room.member' OR state_key = ANY ($2::text[]))
    ORDER BY event_nid
"""


async def list_without_members(
    conn: Connection, event_nids: Collection[int], *, members: Collection[UserId]
) -> list[int]:
    """Those of some state events that are no member events, or the member events of a few users."""
    rows = await conn.fetch(SELECT_WITHOUT_MEMBERS, list(event_nids), list(members))
    return [row["event_nid"] for row in rows]
