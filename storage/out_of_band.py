"""Writing memberships of this server's users in rooms that it is not in: invitations, knocks, and their ends.

Their events stand outside the graph, and the state of the room stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class OutsideRoom:
    """A room, as far as those who are outside need to know.

    Attributes:
        room_version: its identifier.
        is_resident: users of this server are joined to it.
    """

    room_nid: int
    room_version: str
    is_resident: bool


LOCK_OUTSIDE_ROOM: Final = """
    SELECT r.room_nid, r.room_version, s.local_joined_members > 0 AS is_resident
    FROM rooms r JOIN room_summaries s USING (room_nid)
    WHERE r.room_id = $1
    FOR NO KEY UPDATE OF r
"""


async def lock_outside_room(conn: Connection, room_id: RoomId) -> OutsideRoom | None:
    """A room, which cannot be entered until the transaction ends; None if it is not known."""
    row = await conn.fetchrow(LOCK_OUTSIDE_ROOM, room_id)
    return None if row is None else OutsideRoom(row["room_nid"], row["room_version"], row["is_resident"])


SELECT_IS_HERE: Final = """
    SELECT EXISTS (
        SELECT FROM rooms r JOIN room_summaries s USING (room_nid)
        WHERE r.room_id = $1 AND r.state_id IS NOT NULL AND (s.local_joined_members > 0 OR s.joined_members = 0)
    )
"""


async def is_here(conn: Connection, room_id: RoomId) -> bool:
    """Whether this server knows a room as it is now: it is in there, or everybody had left when it last was."""
    return bool(await conn.fetchval(SELECT_IS_HERE, room_id))


INSERT_OUTSIDE_EVENT: Final = """
    INSERT INTO events (
        event_id, room_nid, depth, origin_server_ts, type, state_key, sender, prev_event_nids, auth_event_nids,
        client_json, federation_json
    ) VALUES (
        $1, $2, $3, $4, $5, $6, $7,
        ARRAY (SELECT event_nid FROM events WHERE event_id = ANY ($8::text[])),
        ARRAY (SELECT event_nid FROM events WHERE event_id = ANY ($9::text[])),
        $10, $11
    )
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_nid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideEvent:
    """A member event as it is stored; references to other events are by id, and kept where these are known."""

    event_id: str
    depth: int
    origin_server_ts: int
    type: str
    state_key: str
    sender: str
    prev_events: Sequence[str]
    auth_events: Sequence[str]
    client_json: str
    federation_json: str


async def insert_outside_event(conn: Connection, room_nid: int, event: OutsideEvent) -> int | None:
    """Stores an event outside the graph; returns its number, or None if there is an event of that id already."""
    event_nid: int | None = await conn.fetchval(
        INSERT_OUTSIDE_EVENT,
        event.event_id,
        room_nid,
        event.depth,
        event.origin_server_ts,
        event.type,
        event.state_key,
        event.sender,
        list(event.prev_events),
        list(event.auth_events),
        event.client_json,
        event.federation_json,
    )
    return event_nid


SELECT_STORED_EVENT: Final = """
    SELECT e.event_nid, e.rejected IS NOT NULL AS is_rejected, EXISTS (
        SELECT FROM membership_changes c WHERE c.user_id = $2 AND c.event_nid = e.event_nid
    ) AS is_told
    FROM events e WHERE e.event_id = $1
"""


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """A member event that is stored already.

    Attributes:
        is_rejected: the authorization rules have refused it.
        is_told: it has been the user's membership before.
    """

    event_nid: int
    is_rejected: bool
    is_told: bool


async def find_known_event(conn: Connection, event_id: str, user_id: UserId) -> KnownEvent | None:
    """A member event of a local user, if it is stored."""
    row = await conn.fetchrow(SELECT_STORED_EVENT, event_id, user_id)
    return None if row is None else KnownEvent(row["event_nid"], row["is_rejected"], row["is_told"])


CHANGE_OUTSIDE_MEMBERSHIP: Final = """
    WITH old AS (
        SELECT event_nid FROM memberships WHERE user_id = $1 AND room_nid = $2
    ), outdated AS (
        DELETE FROM invited_states WHERE event_nid = (SELECT event_nid FROM old) AND event_nid <> $4
    ), membership AS (
        INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, room_nid) DO UPDATE SET
            membership = excluded.membership, event_nid = excluded.event_nid, sender = excluded.sender,
            joined_nid = NULL, forgotten = false, position = stream_position()
    )
    INSERT INTO membership_changes (user_id, room_nid, membership, event_nid) VALUES ($1, $2, $3, $4)
    RETURNING position
"""


async def change_outside_membership(
    conn: Connection, *, user_id: UserId, room_nid: int, membership: str, event_nid: int, sender: UserId
) -> int:
    """Sets a local user's membership, and forgets what came with the one before; returns the position."""
    return int(await conn.fetchval(CHANGE_OUTSIDE_MEMBERSHIP, user_id, room_nid, membership, event_nid, sender))


INSERT_OUTSIDE_PUSH: Final = """
    SELECT add_push_exceptions(
        $1, ARRAY[$2::bigint],
        ARRAY[jsonb_populate_record(NULL::new_event, jsonb_build_object('sender', $3::text, 'soft_failed', false))],
        $4::new_push_exception[]
    )
"""


async def add_outside_push(
    conn: Connection, *, room_nid: int, event_nid: int, sender: UserId, outcomes: Sequence[tuple[str, str, bool, bool]]
) -> None:
    """Notes what an event does to some users: each with the actions as JSON, and whether these notify and highlight.

    The caller holds the lock of the room's row.
    """
    if outcomes:
        await conn.execute(INSERT_OUTSIDE_PUSH, room_nid, event_nid, sender, [(-1, *outcome) for outcome in outcomes])
