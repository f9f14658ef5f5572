"""What may be told of rooms to those who look for rooms: summaries, join rules, children of spaces, their servers."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, ServerName, UserId
from storage.database import Connection
from storage.room_summaries import RoomSummaryRow, room_summary


@dataclass(frozen=True, slots=True)
class FoundRoom:
    """A room with what decides who may find it.

    Attributes:
        membership: the asking user's; None if it has none.
        join_rules: the `m.room.join_rules` event as JSON text; None if there is none.
    """

    summary: RoomSummaryRow
    membership: str | None
    join_rules: str | None


SELECT_FOUND_ROOMS: Final = """
    SELECT r.room_id, r.room_version, s.*, m.membership, e.client_json AS join_rules
    FROM rooms r
    JOIN room_summaries s USING (room_nid)
    LEFT JOIN memberships m ON m.room_nid = r.room_nid AND m.user_id = $2
    LEFT JOIN current_state c ON c.room_nid = r.room_nid AND c.slot_id = (
        SELECT slot_id FROM state_slots WHERE type = 'm.room.join_rules' AND state_key = ''
    )
    LEFT JOIN events e ON e.event_nid = c.event_nid
    WHERE r.room_id = ANY ($1::text[]) AND s.local_joined_members > 0
"""


async def find_rooms(
    conn: Connection, room_ids: Collection[RoomId], *, user_id: UserId | None
) -> dict[RoomId, FoundRoom]:
    """Those of some rooms that this server is in."""
    rows = await conn.fetch(SELECT_FOUND_ROOMS, list(room_ids), user_id)
    found = (FoundRoom(room_summary(row), row["membership"], row["join_rules"]) for row in rows)
    return {room.summary.room_id: room for room in found}


SELECT_JOINED_AMONG: Final = """
    SELECT r.room_id FROM rooms r JOIN memberships m USING (room_nid)
    WHERE r.room_id = ANY ($2::text[]) AND m.user_id = $1 AND m.membership = 'join'
"""


async def list_joined_among(conn: Connection, user_id: UserId, room_ids: Collection[str]) -> set[str]:
    """Those of some rooms that a user is in."""
    if not room_ids:
        return set()
    return {row["room_id"] for row in await conn.fetch(SELECT_JOINED_AMONG, user_id, list(room_ids))}


SELECT_INVITED_AMONG: Final = """
    SELECT r.room_id FROM rooms r JOIN memberships m USING (room_nid)
    WHERE r.room_id = ANY ($2::text[]) AND m.user_id = $1 AND m.membership = 'invite'
"""


async def list_invited_among(conn: Connection, user_id: UserId, room_ids: Collection[RoomId]) -> set[RoomId]:
    """Those of some rooms that a user is invited to, whether or not this server is in them."""
    if not room_ids:
        return set()
    return {RoomId(row["room_id"]) for row in await conn.fetch(SELECT_INVITED_AMONG, user_id, list(room_ids))}


@dataclass(frozen=True, slots=True)
class ChildRow:
    """An `m.space.child` event of a room's current state."""

    room_nid: int
    child_id: str
    origin_server_ts: int
    client_json: str


# Found by the history of events of this type, so that a space with many members is no slower than others.
SELECT_CHILDREN: Final = """
    SELECT e.room_nid, e.state_key AS child_id, e.origin_server_ts, e.client_json
    FROM events e
    JOIN state_slots slot ON slot.type = e.type AND slot.state_key = e.state_key
    JOIN current_state c ON c.room_nid = e.room_nid AND c.slot_id = slot.slot_id AND c.event_nid = e.event_nid
    WHERE e.room_nid = ANY ($1::integer[]) AND e.type = 'm.space.child' AND e.state_key IS NOT NULL
    ORDER BY e.event_nid
    LIMIT $2
"""


async def list_children(conn: Connection, room_nids: Collection[int], *, limit: int) -> list[ChildRow]:
    """The events by which rooms name their children, valid or not, the oldest first."""
    if not room_nids:
        return []
    return [ChildRow(*row) for row in await conn.fetch(SELECT_CHILDREN, list(room_nids), limit)]


SELECT_SERVERS: Final = """
    SELECT substring(m.user_id FROM position(':' IN m.user_id) + 1) AS server_name
    FROM rooms r JOIN memberships m USING (room_nid)
    WHERE r.room_id = $1 AND m.membership = 'join'
    GROUP BY server_name
    ORDER BY count(*) DESC, server_name
    LIMIT $2
"""


async def list_servers(conn: Connection, room_id: RoomId, *, limit: int) -> list[ServerName]:
    """The servers that have users in a room, those with the most first."""
    return [ServerName(row["server_name"]) for row in await conn.fetch(SELECT_SERVERS, room_id, limit)]


SELECT_MUTUAL_ROOMS: Final = """
    SELECT r.room_nid, r.room_id
    FROM memberships mine JOIN memberships theirs USING (room_nid) JOIN rooms r USING (room_nid)
    WHERE mine.user_id = $1 AND mine.membership = 'join' AND theirs.user_id = $2 AND theirs.membership = 'join'
    ORDER BY r.room_nid
"""


async def list_mutual_rooms(conn: Connection, *, user_id: UserId, other_user_id: UserId) -> list[tuple[int, RoomId]]:
    """The rooms (`room_nid` and id) that two users are in together, in the order in which this server knows them."""
    rows = await conn.fetch(SELECT_MUTUAL_ROOMS, user_id, other_user_id)
    return [(row["room_nid"], RoomId(row["room_id"])) for row in rows]
