"""Rooms: their version, where their event graph ends, and which state is current."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import NotFound
from homeserver.core.ids import RoomId
from homeserver.core.room_versions import RoomVersion, room_version_named
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A room that this server knows.

    Attributes:
        room_nid: the room inside the database.
        state_version: raised by every change of the current state.
        state_id: the snapshot of the current state; None while this server has no part in the room.
        forward_extremities: the events (`event_nid`) that nothing follows yet.
    """

    room_nid: int
    room_id: RoomId
    room_version: RoomVersion
    state_version: int
    state_id: int | None
    forward_extremities: Sequence[int]


def room_row(row: Row) -> RoomRow:
    """Reads a row with the columns of a room."""
    return RoomRow(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        room_version=room_version_named(row["room_version"]),
        state_version=row["state_version"],
        state_id=row["state_id"],
        forward_extremities=row["forward_extremities"],
    )


SELECT_ROOM: Final = """
    SELECT room_nid, room_id, room_version, state_version, state_id, forward_extremities FROM rooms WHERE room_id = $1
"""


async def find_room(conn: Connection, room_id: RoomId) -> RoomRow | None:
    """A room by its id; None if this server has never heard of it."""
    row = await conn.fetchrow(SELECT_ROOM, room_id)
    return None if row is None else room_row(row)


async def get_room(conn: Connection, room_id: RoomId) -> RoomRow:
    """A room by its id.

    Raises:
        NotFound: this server has never heard of it.
    """
    room = await find_room(conn, room_id)
    if room is None:
        raise NotFound("Unknown room")
    return room


SELECT_ROOMS: Final = """
    SELECT room_nid, room_id, room_version, state_version, state_id, forward_extremities
    FROM rooms WHERE room_nid = ANY ($1::integer[])
"""


async def list_rooms(conn: Connection, room_nids: Collection[int]) -> list[RoomRow]:
    """Rooms by their numbers, in no order; unknown ones are absent."""
    return [room_row(row) for row in await conn.fetch(SELECT_ROOMS, list(room_nids))]


INSERT_ROOM: Final = """
    WITH room AS (
        INSERT INTO rooms (room_id, room_version) VALUES ($1, $2) ON CONFLICT (room_id) DO NOTHING RETURNING room_nid
    )
    INSERT INTO room_summaries (room_nid) SELECT room_nid FROM room RETURNING room_nid
"""


async def insert_room(conn: Connection, room_id: RoomId, room_version: RoomVersion) -> int | None:
    """Adds a room without events; returns its `room_nid`, or None if there is such a room already."""
    room_nid: int | None = await conn.fetchval(INSERT_ROOM, room_id, room_version.identifier)
    return room_nid
