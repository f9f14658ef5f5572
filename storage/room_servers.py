"""Which servers are in rooms, as the current state has it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import orjson

from homeserver.core.ids import ServerName
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """The servers of those who are joined to a room.

    Attributes:
        state_id: the snapshot of the current state that they were counted in.
        joined: how many users of each server are joined.
    """

    state_id: int
    joined: dict[ServerName, int]


SELECT_SERVER_COUNTS: Final = """
    SELECT r.room_nid, r.state_id, counted.server_name, counted.joined
    FROM rooms r LEFT JOIN LATERAL (
        SELECT substr(m.user_id, strpos(m.user_id, ':') + 1) AS server_name, count(*) AS joined
        FROM memberships m WHERE m.room_nid = r.room_nid AND m.membership = 'join'
        GROUP BY 1
    ) AS counted ON true
    WHERE r.room_nid = ANY ($1::integer[]) AND r.state_id IS NOT NULL
"""


async def list_server_counts(conn: Connection, room_nids: Collection[int]) -> dict[int, ServerCounts]:
    """The servers in rooms with their numbers of joined users, by `room_nid`.

    Rooms that this server never was in are absent.
    """
    found: dict[int, ServerCounts] = {}
    for row in await conn.fetch(SELECT_SERVER_COUNTS, list(room_nids)):
        counts = found.setdefault(row["room_nid"], ServerCounts(row["state_id"], {}))
        if row["server_name"] is not None:
            counts.joined[ServerName(row["server_name"])] = row["joined"]
    return found


SELECT_CURRENT_STATE_IDS: Final = """
    SELECT r.room_nid, r.state_id FROM rooms r JOIN room_summaries s USING (room_nid)
    WHERE r.room_nid = ANY ($1::integer[]) AND r.state_id IS NOT NULL AND s.local_joined_members > 0
"""


async def list_current_state_ids(conn: Connection, room_nids: Collection[int]) -> dict[int, int]:
    """The snapshots of the current states of those rooms that this server is in, by `room_nid`."""
    rows = await conn.fetch(SELECT_CURRENT_STATE_IDS, list(room_nids))
    return {row["room_nid"]: row["state_id"] for row in rows}


SELECT_PARTIAL_ROOM_SERVERS: Final = "SELECT room_nid, servers FROM partial_rooms WHERE room_nid = ANY ($1::integer[])"


async def list_partial_room_servers(conn: Connection, room_nids: Collection[int]) -> dict[int, frozenset[ServerName]]:
    """The servers in those of some rooms whose members are not all known yet, by `room_nid`."""
    rows = await conn.fetch(SELECT_PARTIAL_ROOM_SERVERS, list(room_nids))
    return {row["room_nid"]: frozenset(map(ServerName, row["servers"])) for row in rows}


# Not read by PostgreSQL's own JSON: that refuses the NUL characters that an event may hold.
SELECT_MEMBER_EVENTS: Final = """
    SELECT event_nid, client_json FROM events WHERE event_nid = ANY ($1::bigint[]) AND type = 'm.room.member'
"""


async def list_set_memberships(conn: Connection, event_nids: Collection[int]) -> dict[int, str]:
    """The memberships that some member events set, by their numbers; other events are absent."""
    if not event_nids:
        return {}
    rows = await conn.fetch(SELECT_MEMBER_EVENTS, list(event_nids))
    contents = {row["event_nid"]: orjson.loads(row["client_json"])["content"] for row in rows}
    memberships = {event_nid: content.get("membership") for event_nid, content in contents.items()}
    return {event_nid: value for event_nid, value in memberships.items() if isinstance(value, str)}


SELECT_ROOMS_WITH_ACL: Final = """
    SELECT r.room_id FROM rooms r JOIN current_state c USING (room_nid)
    WHERE r.room_id = ANY ($1::text[]) AND c.slot_id = (
        SELECT slot_id FROM state_slots WHERE type = 'm.room.server_acl' AND state_key = ''
    )
"""


async def list_rooms_with_acl(conn: Connection, room_ids: Collection[str]) -> set[str]:
    """Those of some rooms that have a server access control list now."""
    return {row["room_id"] for row in await conn.fetch(SELECT_ROOMS_WITH_ACL, list(room_ids))}
