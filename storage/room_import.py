"""Writing a room that this server enters from outside: its state first, in parts that nobody sees, then all that shows.

As long as this server is not in the room, nobody reads its current state or the memberships of other servers' users; so
a crash on the way leaves nothing but rows that the next attempt overwrites.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import EventId, ServerName, UserId
from homeserver.core.room_versions import RoomVersion
from storage.append import NewEvent, RoomChanged
from storage.database import Connection
from storage.partial_rooms import delete_partial_room, put_partial_room
from storage.rooms import RoomRow
from storage.state import derive_state

GAP: Final = 2**20
"""How many places in history are left free where events are missing, for those that are fetched later."""

SELECT_LEASE: Final = "SELECT EXISTS (SELECT FROM leases WHERE name = $1 AND holder = $2 FOR SHARE)"


async def hold_lease(conn: Connection, *, name: str, holder: str) -> bool:
    """Whether a lease is still the holder's; then it cannot be lost until the transaction ends."""
    return bool(await conn.fetchval(SELECT_LEASE, name, holder))


RESET_ROOM: Final = """
    WITH outside AS (
        SELECT event_nid FROM events WHERE room_nid = $1 AND topological IS NULL
    ), state AS (
        DELETE FROM invited_states WHERE event_nid IN (SELECT event_nid FROM outside)
    ), push AS (
        DELETE FROM event_push_exceptions WHERE event_nid IN (SELECT event_nid FROM outside)
    ), event AS (
        DELETE FROM events WHERE room_nid = $1 AND topological IS NULL
    ), ended AS (
        UPDATE memberships SET membership = 'leave', event_nid = 0, position = stream_position()
        WHERE room_nid = $1 AND membership <> 'leave' AND right(user_id, length($3) + 1) = ':' || $3
        RETURNING user_id
    ), told AS (
        INSERT INTO membership_changes (user_id, room_nid, membership, event_nid)
        SELECT user_id, $1, 'leave', 0 FROM ended
    )
    UPDATE rooms SET room_version = $2 WHERE room_nid = $1
"""


async def reset_room(conn: Connection, room_nid: int, room_version: RoomVersion, *, server_name: ServerName) -> None:
    """Gives a room that this server was never in another version; all that was known of it is void.

    Whoever invites somebody may have named any version.
    """
    await conn.execute(RESET_ROOM, room_nid, room_version.identifier, server_name)


SELECT_FILLED_SLOTS: Final = "SELECT slot_id FROM current_state WHERE room_nid = $1"


async def list_filled_slots(conn: Connection, room_nid: int) -> set[int]:
    """The slots of a room's current state, also of one that was begun and given up."""
    return {row["slot_id"] for row in await conn.fetch(SELECT_FILLED_SLOTS, room_nid)}


UPSERT_ENTRIES: Final = """
    INSERT INTO current_state (room_nid, slot_id, event_nid)
    SELECT $1, entry.slot_id, entry.event_nid FROM unnest($2::integer[], $3::bigint[]) AS entry (slot_id, event_nid)
    ORDER BY entry.slot_id
    ON CONFLICT (room_nid, slot_id) DO UPDATE SET event_nid = excluded.event_nid
"""


async def put_entries(conn: Connection, room_nid: int, entries: Mapping[int, int]) -> None:
    """Writes entries (events by slot) of the current state."""
    await conn.execute(UPSERT_ENTRIES, room_nid, list(entries), list(entries.values()))


@dataclass(frozen=True, slots=True)
class StateMember:
    """A membership, as an event of the state says it."""

    user_id: UserId
    membership: str
    event_nid: int
    sender: UserId


UPSERT_OTHER_MEMBERS: Final = """
    INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender, joined_nid)
    SELECT m.user_id, $1, m.membership, m.event_nid, m.sender, CASE WHEN m.membership = 'join' THEN m.event_nid END
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) AS m (user_id, membership, event_nid, sender)
    ORDER BY m.user_id
    ON CONFLICT (user_id, room_nid) DO UPDATE SET
        membership = excluded.membership, event_nid = excluded.event_nid, sender = excluded.sender,
        joined_nid = excluded.joined_nid, forgotten = false, position = stream_position()
    WHERE NOT $6
"""


async def put_other_members(
    conn: Connection, room_nid: int, members: Sequence[StateMember], *, if_absent: bool = False
) -> None:
    """Writes memberships of other servers' users; if wanted, only of those who have none yet."""
    await conn.execute(
        UPSERT_OTHER_MEMBERS,
        room_nid,
        [member.user_id for member in members],
        [member.membership for member in members],
        [member.event_nid for member in members],
        [member.sender for member in members],
        if_absent,
    )


DELETE_ABSENT_MEMBERS: Final = """
    DELETE FROM memberships m
    WHERE m.room_nid = $1 AND right(m.user_id, length($2) + 1) <> ':' || $2 AND NOT m.user_id = ANY ($3::text[])
"""


async def delete_absent_members(
    conn: Connection, room_nid: int, present: Collection[UserId], *, server_name: ServerName
) -> None:
    """Removes the memberships of other servers' users but those of some."""
    await conn.execute(DELETE_ABSENT_MEMBERS, room_nid, server_name, list(present))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """How a room is entered.

    Attributes:
        room: as it was when the work began.
        join: the event; its `prev_events` and `auth_events` are not looked at.
        prev_events, auth_events: the ids of what it follows and cites.
        state_before_id: the snapshot of the state before it.
        slot_id: where the join stands in the state.
        stale_slot_ids: slots with an entry from earlier which the state has not.
        own_members: the memberships of this server's users by that state, without who joins.
        summary: every column of the room's summary that is read from the state.
        servers: for a state without most members, the servers in the room; None for a whole state.
    """

    room: RoomRow
    join: NewEvent
    prev_events: Sequence[EventId]
    auth_events: Sequence[EventId]
    state_before_id: int
    slot_id: int
    stale_slot_ids: Collection[int]
    own_members: Sequence[StateMember]
    summary: Sequence[tuple[str, str | None]]
    servers: Sequence[ServerName] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Entered:
    """What was written: the stream's position, the join's number, and whose memberships have changed."""

    position: int
    join_nid: int
    user_ids: Sequence[UserId]


LOCK_UNCHANGED_ROOM: Final = """
    SELECT state_version = $2 AND state_id IS NOT DISTINCT FROM $3 AND forward_extremities = $4::bigint[]
    FROM rooms WHERE room_nid = $1
    FOR NO KEY UPDATE
"""
INSERT_JOIN: Final = f"""
    INSERT INTO events (
        event_id, room_nid, position, topological, depth, origin_server_ts, type, state_key, sender, state_id,
        prev_event_nids, auth_event_nids, notifying_count, client_json, federation_json
    )
    SELECT $2, $1, stream_position(),
        coalesce(ends.topological + CASE WHEN previous.known = cardinality($9::text[]) THEN 1 ELSE {GAP} END, 1),
        $3, $4, $5, $6, $7, $8, previous.nids, ARRAY (SELECT event_nid FROM events WHERE event_id = ANY ($10::text[])),
        ends.notifying_count, $11, $12
    FROM (
        SELECT (
            SELECT e.topological FROM events e WHERE e.room_nid = $1 AND e.topological IS NOT NULL
            ORDER BY e.topological DESC LIMIT 1
        ) AS topological, coalesce((
            SELECT e.notifying_count FROM events e WHERE e.room_nid = $1 AND e.position IS NOT NULL
            ORDER BY e.position DESC, e.event_nid DESC LIMIT 1
        ), 0) AS notifying_count
    ) AS ends, (
        SELECT count(*) FILTER (WHERE e.topological IS NOT NULL) AS known,
            coalesce(array_agg(e.event_nid), '{{}}') AS nids
        FROM events e WHERE e.event_id = ANY ($9::text[])
    ) AS previous
    RETURNING event_nid, position
"""  # noqa: S608 - a constant number
DELETE_ENTRIES: Final = "DELETE FROM current_state WHERE room_nid = $1 AND slot_id = ANY ($2::integer[])"
CHANGE_OWN_MEMBERS: Final = """
    WITH told AS (
        SELECT m.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[])
            AS m (user_id, membership, event_nid, sender)
        WHERE NOT EXISTS (
            SELECT FROM memberships o
            WHERE o.user_id = m.user_id AND o.room_nid = $1
                AND o.event_nid = m.event_nid AND o.membership = m.membership
        )
    ), outdated AS (
        DELETE FROM invited_states WHERE event_nid IN (
            SELECT o.event_nid FROM memberships o JOIN told USING (user_id) WHERE o.room_nid = $1
        )
    ), changed AS (
        INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender, joined_nid)
        SELECT user_id, $1, membership, event_nid, sender, CASE WHEN membership = 'join' THEN event_nid END FROM told
        ORDER BY user_id
        ON CONFLICT (user_id, room_nid) DO UPDATE SET
            membership = excluded.membership, event_nid = excluded.event_nid, sender = excluded.sender,
            joined_nid = CASE WHEN excluded.membership = 'join'
                THEN coalesce(memberships.joined_nid, excluded.joined_nid) END,
            forgotten = false, position = stream_position()
    )
    INSERT INTO membership_changes (user_id, room_nid, membership, event_nid)
    SELECT user_id, $1, membership, event_nid FROM told
    RETURNING user_id
"""
# An invitation or a knock that the room does not know of.
END_UNKNOWN_OWN_MEMBERS: Final = """
    WITH ended AS (
        UPDATE memberships m SET membership = 'leave', joined_nid = NULL, position = stream_position()
        WHERE m.room_nid = $1 AND m.membership IN ('invite', 'knock') AND right(m.user_id, length($2) + 1) = ':' || $2
            AND NOT EXISTS (
                SELECT FROM state_slots s JOIN current_state c USING (slot_id)
                WHERE s.type = 'm.room.member' AND s.state_key = m.user_id AND c.room_nid = $1
            )
        RETURNING user_id, event_nid
    ), outdated AS (
        DELETE FROM invited_states WHERE event_nid IN (SELECT event_nid FROM ended)
    )
    INSERT INTO membership_changes (user_id, room_nid, membership, event_nid)
    SELECT user_id, $1, 'leave', 0 FROM ended
    RETURNING user_id
"""
COUNT_MEMBERS: Final = """
    UPDATE room_summaries s SET
        joined_members = counted.joined, invited_members = counted.invited, local_joined_members = counted.local_joined
    FROM (
        SELECT count(*) FILTER (WHERE membership = 'join') AS joined,
            count(*) FILTER (WHERE membership = 'invite') AS invited,
            count(*) FILTER (WHERE membership = 'join' AND right(user_id, length($2) + 1) = ':' || $2) AS local_joined
        FROM memberships WHERE room_nid = $1
    ) AS counted
    WHERE s.room_nid = $1
"""
CHANGE_SUMMARY: Final = "SELECT change_summary($1, $2::summary_change[])"
INSERT_STATE_HISTORY: Final = "INSERT INTO state_history (room_nid, state_id) VALUES ($1, $2)"
UPDATE_ENTERED_ROOM: Final = """
    UPDATE rooms SET state_id = $2, state_version = state_version + 1, forward_extremities = ARRAY[$3::bigint]
    WHERE room_nid = $1
"""
INSERT_MISSING: Final = """
    INSERT INTO missing_events (room_nid, event_id, topological)
    SELECT $1, missing.event_id, own.topological
    FROM unnest($3::text[]) AS missing (event_id), events own
    WHERE own.event_nid = $2
        AND NOT EXISTS (SELECT FROM events e WHERE e.event_id = missing.event_id AND e.state_id IS NOT NULL)
    ON CONFLICT DO NOTHING
"""
DELETE_COMPLETED: Final = "DELETE FROM completed_rooms WHERE room_nid = $1"


async def enter_room(conn: Connection, entrance: Entrance, *, server_name: ServerName) -> Entered:
    """Adds the join and makes the state, whose entries and other members are written already, the room's own.

    Raises:
        RoomChanged: the room is not as it was when the work began.
        UniqueViolation: the join is stored already.
    """
    room, join = entrance.room, entrance.join
    unchanged = await conn.fetchval(
        LOCK_UNCHANGED_ROOM, room.room_nid, room.state_version, room.state_id, list(room.forward_extremities)
    )
    if not unchanged:
        raise RoomChanged
    join_nid, position = await _insert_join(conn, entrance)
    base, slot_id = entrance.state_before_id, entrance.slot_id
    state_id = await derive_state(conn, room_nid=room.room_nid, base_state_id=base, changes={slot_id: join_nid})
    await conn.execute(DELETE_ENTRIES, room.room_nid, list(entrance.stale_slot_ids))
    await put_entries(conn, room.room_nid, {slot_id: join_nid})
    joining = StateMember(UserId(join.sender), "join", join_nid, UserId(join.sender))
    told = await change_own_members(conn, room.room_nid, [*entrance.own_members, joining])
    if entrance.servers is None:
        told += await end_unknown_own_members(conn, room.room_nid, server_name=server_name)
    await count_members(conn, room.room_nid, server_name=server_name)
    await conn.execute(CHANGE_SUMMARY, room.room_nid, list(entrance.summary))
    await conn.execute(INSERT_STATE_HISTORY, room.room_nid, state_id)
    await conn.execute(UPDATE_ENTERED_ROOM, room.room_nid, state_id, join_nid)
    await conn.execute(INSERT_MISSING, room.room_nid, join_nid, list(entrance.prev_events))
    await conn.execute(DELETE_COMPLETED, room.room_nid)
    if entrance.servers is None:
        await delete_partial_room(conn, room.room_nid)
    else:
        await put_partial_room(conn, room_nid=room.room_nid, join_nid=join_nid, servers=entrance.servers)
    return Entered(position, join_nid, told)


async def _insert_join(conn: Connection, entrance: Entrance) -> tuple[int, int]:
    join = entrance.join
    row = await conn.fetchrow(
        INSERT_JOIN,
        entrance.room.room_nid,
        join.event_id,
        join.depth,
        join.origin_server_ts,
        join.type,
        join.state_key,
        join.sender,
        entrance.state_before_id,
        list(entrance.prev_events),
        list(entrance.auth_events),
        join.client_json,
        join.federation_json,
    )
    assert row is not None, "An insertion of one row returns it"
    return row["event_nid"], row["position"]


async def change_own_members(conn: Connection, room_nid: int, members: Sequence[StateMember]) -> list[UserId]:
    """Sets memberships of this server's users; returns those who did not have them before."""
    rows = await conn.fetch(
        CHANGE_OWN_MEMBERS,
        room_nid,
        [member.user_id for member in members],
        [member.membership for member in members],
        [member.event_nid for member in members],
        [member.sender for member in members],
    )
    return [UserId(row["user_id"]) for row in rows]


async def end_unknown_own_members(conn: Connection, room_nid: int, *, server_name: ServerName) -> list[UserId]:
    """Ends invitations and knocks of this server's users that the current state does not have; returns whose."""
    rows = await conn.fetch(END_UNKNOWN_OWN_MEMBERS, room_nid, server_name)
    return [UserId(row["user_id"]) for row in rows]


async def count_members(conn: Connection, room_nid: int, *, server_name: ServerName) -> None:
    """Counts the members in the room's summary anew."""
    await conn.execute(COUNT_MEMBERS, room_nid, server_name)
