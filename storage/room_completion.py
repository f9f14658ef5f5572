"""Writing what a room lacked that was entered without most of its members: their entries in all states since then."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName, UserId
from storage.append import RoomChanged
from storage.database import Connection
from storage.partial_rooms import delete_partial_room
from storage.room_import import (
    CHANGE_SUMMARY,
    DELETE_ENTRIES,
    INSERT_STATE_HISTORY,
    StateMember,
    change_own_members,
    count_members,
    end_unknown_own_members,
    put_entries,
    put_other_members,
)
from storage.state import are_stored


@dataclass(frozen=True, slots=True)
class LaterEvent:
    """An event since the join, with those of its previous events that are known."""

    event_nid: int
    prev_event_nids: Sequence[int]


# Those that are not shown have no place in history; they may still be followed by others.
SELECT_LATER_EVENTS: Final = """
    SELECT e.event_nid, e.prev_event_nids
    FROM events e, events joined
    WHERE joined.event_nid = $2 AND e.room_nid = $1 AND e.state_id IS NOT NULL AND e.event_nid <> $2
        AND (e.topological > joined.topological OR (e.topological IS NULL AND e.event_nid > $2))
    ORDER BY e.event_nid
"""


async def list_later_events(conn: Connection, *, room_nid: int, join_nid: int) -> list[LaterEvent]:
    """The events of a room since a join, as far as they are in the graph."""
    rows = await conn.fetch(SELECT_LATER_EVENTS, room_nid, join_nid)
    return [LaterEvent(row["event_nid"], row["prev_event_nids"]) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What makes a room complete.

    Attributes:
        state_version, partial_state_id: of the room as it was when this was found out.
        state_id: the whole current state.
        entries: the entries (events by slot) that the current state has and had not.
        emptied_slot_ids: those that it had and has not.
        states: the snapshot before each event since the join, and before the join.
        rejected: those of these events that the whole state does not allow, with the reason.
        own_members, other_members: memberships by entries that replace others, or of our users.
        summary: columns of the summary that change with it.
    """

    room_nid: int
    join_nid: int
    state_version: int
    partial_state_id: int
    state_id: int
    entries: Mapping[int, int]
    emptied_slot_ids: Collection[int]
    states: Mapping[int, int]
    rejected: Mapping[int, str]
    own_members: Sequence[StateMember]
    other_members: Sequence[StateMember]
    summary: Sequence[tuple[str, str | None]]


LOCK_PARTIAL_ROOM: Final = """
    SELECT r.state_version = $2 AND r.state_id = $3 FROM rooms r WHERE r.room_nid = $1 FOR NO KEY UPDATE
"""
# What has come meanwhile has changed no state, or the room would have another state_version.
UPDATE_NEWEST_STATES: Final = """
    UPDATE events e SET state_id = $4
    FROM events joined
    WHERE joined.event_nid = $5 AND e.room_nid = $1 AND e.state_id = $3 AND NOT e.event_nid = ANY ($2::bigint[])
        AND (e.topological > joined.topological OR (e.topological IS NULL AND e.event_nid > $5))
"""
UPDATE_STATES: Final = """
    UPDATE events e SET state_id = n.state_id
    FROM unnest($1::bigint[], $2::bigint[]) AS n (event_nid, state_id)
    WHERE e.event_nid = n.event_nid AND e.state_id <> n.state_id
"""
REJECT_EVENTS: Final = """
    UPDATE events e SET rejected = n.reason, position = NULL, topological = NULL, revision = e.revision + 1
    FROM unnest($1::bigint[], $2::text[]) AS n (event_nid, reason)
    WHERE e.event_nid = n.event_nid
"""
UPDATE_COMPLETED_ROOM: Final = """
    UPDATE rooms SET state_id = $2, state_version = state_version + 1 WHERE room_nid = $1
"""
UPSERT_COMPLETED: Final = """
    INSERT INTO completed_rooms (room_nid, join_nid) VALUES ($1, $2)
    ON CONFLICT (room_nid) DO UPDATE SET join_nid = excluded.join_nid, position = stream_position()
    RETURNING position
"""


async def complete_room(
    conn: Connection, completion: Completion, *, server_name: ServerName
) -> tuple[int, Sequence[UserId]]:
    """Gives a room and all its states since the join what they lacked.

    Returns:
        The stream's position, and those of our users whose membership has changed by it.

    Raises:
        RoomChanged: the room's state is not as it was when this was found out, or a state has been collected since.
    """
    room_nid = completion.room_nid
    unchanged = await conn.fetchval(LOCK_PARTIAL_ROOM, room_nid, completion.state_version, completion.partial_state_id)
    if not unchanged or not await are_stored(conn, (completion.state_id, *completion.states.values())):
        raise RoomChanged
    await conn.execute(
        UPDATE_NEWEST_STATES,
        room_nid,
        list(completion.states),
        completion.partial_state_id,
        completion.state_id,
        completion.join_nid,
    )
    await conn.execute(UPDATE_STATES, list(completion.states), list(completion.states.values()))
    await conn.execute(REJECT_EVENTS, list(completion.rejected), list(completion.rejected.values()))
    await put_entries(conn, room_nid, completion.entries)
    await conn.execute(DELETE_ENTRIES, room_nid, list(completion.emptied_slot_ids))
    await put_other_members(conn, room_nid, completion.other_members)
    told = await change_own_members(conn, room_nid, completion.own_members)
    told += await end_unknown_own_members(conn, room_nid, server_name=server_name)
    await count_members(conn, room_nid, server_name=server_name)
    await conn.execute(CHANGE_SUMMARY, room_nid, list(completion.summary))
    await conn.execute(INSERT_STATE_HISTORY, room_nid, completion.state_id)
    await conn.execute(UPDATE_COMPLETED_ROOM, room_nid, completion.state_id)
    await delete_partial_room(conn, room_nid)
    position = int(await conn.fetchval(UPSERT_COMPLETED, room_nid, completion.join_nid))
    return position, told
