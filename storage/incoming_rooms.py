"""What is asked of a room before events of another server are taken into it, in one statement."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.room_versions import room_version_named
from storage.database import Connection
from storage.rooms import RoomRow


@dataclass(frozen=True, slots=True)
class IncomingRoom:
    """A room that a server sends events of.

    Attributes:
        is_resident: this server is in the room.
        knows_sender: the other server has, or has had, a member in the room.
        members_lacking: not all members are known here yet.
        policy_nid: the `m.room.policy` event that is in force; None if there is none.
    """

    room: RoomRow
    is_resident: bool
    knows_sender: bool
    members_lacking: bool
    policy_nid: int | None


SELECT_INCOMING_ROOM: Final = """
    SELECT r.room_nid, r.room_id, r.room_version, r.state_version, r.state_id, r.forward_extremities,
        coalesce(s.local_joined_members > 0, false) AND r.state_id IS NOT NULL AS is_resident,
        $3 OR EXISTS (
            SELECT FROM memberships m
            WHERE m.room_nid = r.room_nid AND substring(m.user_id FROM position(':' IN m.user_id) + 1) = $2
        ) AS knows_sender,
        EXISTS (SELECT FROM partial_rooms p WHERE p.room_nid = r.room_nid) AS members_lacking,
        (
            SELECT c.event_nid FROM current_state c JOIN state_slots slot USING (slot_id)
            WHERE c.room_nid = r.room_nid AND slot.type = 'm.room.policy' AND slot.state_key = ''
        ) AS policy_nid
    FROM rooms r LEFT JOIN room_summaries s USING (room_nid)
    WHERE r.room_id = $1
"""


async def find_incoming_room(
    conn: Connection, room_id: RoomId, origin: ServerName, *, knows_sender: bool
) -> IncomingRoom | None:
    """A room, as it concerns a server that sends events; None if it is not known here.

    `knows_sender` says that the server is known to have been in the room, which then need not be looked up.
    """
    row = await conn.fetchrow(SELECT_INCOMING_ROOM, room_id, origin, knows_sender)
    if row is None:
        return None
    return IncomingRoom(
        room=RoomRow(
            room_nid=row["room_nid"],
            room_id=RoomId(row["room_id"]),
            room_version=room_version_named(row["room_version"]),
            state_version=row["state_version"],
            state_id=row["state_id"],
            forward_extremities=row["forward_extremities"],
        ),
        is_resident=row["is_resident"],
        knows_sender=row["knows_sender"],
        members_lacking=row["members_lacking"],
        policy_nid=row["policy_nid"],
    )


SELECT_POLICY_NID: Final = """
    SELECT c.event_nid FROM current_state c JOIN state_slots slot USING (slot_id)
    WHERE c.room_nid = $1 AND slot.type = 'm.room.policy' AND slot.state_key = ''
"""


async def find_policy_nid(conn: Connection, room_nid: int) -> int | None:
    """The `m.room.policy` event that is in force in a room; None if there is none."""
    event_nid: int | None = await conn.fetchval(SELECT_POLICY_NID, room_nid)
    return event_nid


SELECT_HAS_JOINED: Final = """
    SELECT EXISTS (
        SELECT FROM memberships
        WHERE room_nid = $1 AND membership = 'join' AND substring(user_id FROM position(':' IN user_id) + 1) = $2
    )
"""


async def has_joined_user(conn: Connection, room_nid: int, server_name: ServerName) -> bool:
    """Whether a user of a server is joined to a room."""
    return bool(await conn.fetchval(SELECT_HAS_JOINED, room_nid, server_name))


SELECT_OTHER_SERVERS: Final = """
    SELECT counted.server_name FROM (
        SELECT substring(user_id FROM position(':' IN user_id) + 1) AS server_name, min(event_nid) AS first_nid
        FROM memberships WHERE room_nid = $1 AND membership = 'join'
        GROUP BY 1
    ) AS counted
    WHERE counted.server_name <> ALL ($2::text[])
    ORDER BY counted.first_nid
    LIMIT $3
"""


async def list_other_servers(
    conn: Connection, room_nid: int, *, without: Collection[ServerName], limit: int
) -> list[ServerName]:
    """Servers in a room that are not among some, the one that has been there longest first."""
    rows = await conn.fetch(SELECT_OTHER_SERVERS, room_nid, list(without), limit)
    return [ServerName(row["server_name"]) for row in rows]


@dataclass(frozen=True, slots=True)
class StateRow:
    """An event as a state that another server describes may contain it; `slot_id` is None if no state ever had it."""

    event_nid: int
    event_id: EventId
    type: str
    state_key: str | None


SELECT_STATE_ROWS: Final = """
    SELECT event_nid, event_id, type, state_key FROM events
    WHERE room_nid = $1 AND event_id = ANY ($2::text[]) AND rejected IS NULL
"""


async def list_state_rows(conn: Connection, room_nid: int, event_ids: list[EventId]) -> list[StateRow]:
    """Those of some events that belong to a room and were not rejected."""
    rows = await conn.fetch(SELECT_STATE_ROWS, room_nid, event_ids)
    return [StateRow(row["event_nid"], EventId(row["event_id"]), row["type"], row["state_key"]) for row in rows]


SELECT_THREAD_ROOTS: Final = """
    SELECT event_id, thread_root FROM events WHERE room_nid = $1 AND event_id = ANY ($2::text[])
"""


async def list_thread_roots(conn: Connection, room_nid: int, event_ids: list[EventId]) -> dict[EventId, EventId | None]:
    """The roots of the threads that some events of a room belong to; events that are not known are absent."""
    rows = await conn.fetch(SELECT_THREAD_ROOTS, room_nid, event_ids)
    return {
        EventId(row["event_id"]): None if row["thread_root"] is None else EventId(row["thread_root"]) for row in rows
    }
