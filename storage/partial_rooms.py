"""Rooms that this server has joined without being told of all members yet; `partial_state.py` tells what that means."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, ServerName, UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class PartialRoom:
    """A room some of whose members are not known.

    Attributes:
        join_nid: the join by which this server came in.
        servers: the servers that were in the room then, the one that let us in first.
        failures: how often completing it has failed.
    """

    room_nid: int
    room_id: RoomId
    join_nid: int
    servers: Sequence[ServerName]
    failures: int


INSERT_PARTIAL_ROOM: Final = """
    INSERT INTO partial_rooms (room_nid, join_nid, servers) VALUES ($1, $2, $3)
    ON CONFLICT (room_nid) DO UPDATE SET
        join_nid = excluded.join_nid, servers = excluded.servers, failures = 0, retry_at_ts = 0
"""


async def put_partial_room(conn: Connection, *, room_nid: int, join_nid: int, servers: Sequence[ServerName]) -> None:
    """Notes that the state before a join lacks members."""
    await conn.execute(INSERT_PARTIAL_ROOM, room_nid, join_nid, list(servers))


DELETE_PARTIAL_ROOM: Final = "DELETE FROM partial_rooms WHERE room_nid = $1"


async def delete_partial_room(conn: Connection, room_nid: int) -> None:
    """Notes that nothing is lacking, or that it does not matter any more."""
    await conn.execute(DELETE_PARTIAL_ROOM, room_nid)


SELECT_IS_PARTIAL: Final = "SELECT EXISTS (SELECT FROM partial_rooms WHERE room_nid = $1)"


async def is_partial(conn: Connection, room_nid: int) -> bool:
    """Whether members of a room are lacking."""
    return bool(await conn.fetchval(SELECT_IS_PARTIAL, room_nid))


SELECT_IS_PARTIAL_BY_ID: Final = """
    SELECT EXISTS (SELECT FROM partial_rooms p JOIN rooms r USING (room_nid) WHERE r.room_id = $1)
"""


async def is_partial_by_id(conn: Connection, room_id: RoomId) -> bool:
    """As `is_partial`."""
    return bool(await conn.fetchval(SELECT_IS_PARTIAL_BY_ID, room_id))


SELECT_DUE: Final = """
    SELECT p.room_nid, r.room_id, p.join_nid, p.servers, p.failures
    FROM partial_rooms p JOIN rooms r USING (room_nid)
    WHERE p.retry_at_ts <= $1
    ORDER BY p.failures, p.room_nid
    LIMIT $2
"""


async def list_due(conn: Connection, *, now_ms: int, limit: int) -> list[PartialRoom]:
    """Rooms that are to be completed now."""
    return [_partial_room(row) for row in await conn.fetch(SELECT_DUE, now_ms, limit)]


SELECT_PARTIAL_ROOM: Final = """
    SELECT p.room_nid, r.room_id, p.join_nid, p.servers, p.failures
    FROM partial_rooms p JOIN rooms r USING (room_nid)
    WHERE p.room_nid = $1
"""


async def find_partial_room(conn: Connection, room_nid: int) -> PartialRoom | None:
    """A room, if members of it are lacking."""
    row = await conn.fetchrow(SELECT_PARTIAL_ROOM, room_nid)
    return None if row is None else _partial_room(row)


def _partial_room(row: Row) -> PartialRoom:
    return PartialRoom(
        room_nid=row["room_nid"],
        room_id=RoomId(row["room_id"]),
        join_nid=row["join_nid"],
        servers=[ServerName(name) for name in row["servers"]],
        failures=row["failures"],
    )


UPDATE_FAILED: Final = "UPDATE partial_rooms SET failures = failures + 1, retry_at_ts = $2 WHERE room_nid = $1"


async def postpone(conn: Connection, room_nid: int, *, retry_at_ts: int) -> None:
    """Notes that a room could not be completed, and when it is tried again (milliseconds)."""
    await conn.execute(UPDATE_FAILED, room_nid, retry_at_ts)


SELECT_COMPLETED: Final = """
    SELECT c.room_nid, ARRAY (
        SELECT DISTINCT sender FROM (
            SELECT e.sender FROM events e
            WHERE e.room_nid = c.room_nid AND e.event_nid >= c.join_nid AND e.position IS NOT NULL
            ORDER BY e.position DESC LIMIT 1000
        ) AS newest
    ) AS senders
    FROM completed_rooms c
    WHERE c.room_nid = ANY ($1::integer[]) AND c.position >= $2 AND c.position < $3
"""


async def list_completed(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int
) -> dict[int, list[UserId]]:
    """Those of some rooms whose lacking members came between two positions, each with who has spoken before that."""
    if not room_nids:
        return {}
    rows = await conn.fetch(SELECT_COMPLETED, list(room_nids), since, upto)
    return {row["room_nid"]: [UserId(sender) for sender in row["senders"]] for row in rows}
