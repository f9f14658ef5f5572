"""Placing fetched events in the history of rooms, many at once. They are stored outside the graph before.

All that is written here lies in the past: it has no position in the stream, and neither the current state nor the ends
of the graph change.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, ServerName
from storage.append import NewRelation, ReplacedEvent, RoomChanged
from storage.database import Connection
from storage.events import StoredEvent, stored_event
from storage.missing_events import delete_missing_events, put_missing_events
from storage.room_import import CHANGE_SUMMARY
from storage.state import LOCK_ROOM, are_stored


@dataclass(frozen=True, slots=True)
class DerivedState:
    """A state that is to be stored.

    Attributes:
        base: what it differs from: a snapshot, -n for the n-th state of the same call, None for the empty state.
        changes: events by slot; None empties a slot.
    """

    base: int | None
    changes: Mapping[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedEvent:
    """An event that gets its place.

    Attributes:
        event_nid, revision: the row outside the graph in which it is stored.
        topological: where it stands in history; None if it is not shown there.
        state: the state before it: a snapshot, or -n for the n-th state of the placement.
        prev_nids: its previous events, as far as they are stored.
        rejected: why it failed authorization.
        soft_failed: it is a redaction that has no effect, or none yet.
        redacted_by: the event that has redacted it.
        texts: the client's form and the remainder, if they are others than before.
    """

    event_nid: int
    revision: int
    topological: int | None
    state: int
    prev_nids: Sequence[int]
    rejected: str | None = None
    soft_failed: bool = False
    redacted_by: EventId | None = None
    thread_root: EventId | None = None
    texts: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What is written.

    Attributes:
        events: by id.
        states: those that the events refer to.
        gaps: the gaps that they are placed in, by the number of what stands behind, each with the number of the
            earliest event in it now.
        missing: previous events of theirs that are not in the graph, each with the place before which it is missing.
        relations: what they say by `m.relates_to`; `event` is an `event_nid`.
        replaced_events: events in the graph that redactions among them change.
        awaited: redactions among them, by what they redact when it comes.
        summary: columns of the room's summary that change by `replaced_events`.
        is_current_changed: an event of the current state is among `replaced_events`.
    """

    room_nid: int
    events: Mapping[EventId, PlacedEvent]
    states: Sequence[DerivedState]
    gaps: Mapping[int, int]
    missing: Mapping[EventId, int]
    relations: Sequence[NewRelation] = ()
    replaced_events: Sequence[ReplacedEvent] = ()
    awaited: Sequence[tuple[EventId, int]] = ()
    summary: Sequence[tuple[str, str | None]] = ()
    is_current_changed: bool = False


SELECT_IS_AS_SEEN: Final = """
    SELECT (
        SELECT count(*) FROM events e
        JOIN unnest($1::bigint[], $2::integer[]) AS seen (event_nid, revision) USING (event_nid, revision)
        WHERE e.state_id IS NULL
    ) = cardinality($1) AND (
        SELECT count(*) FROM events e
        JOIN unnest($3::bigint[], $4::integer[]) AS seen (event_nid, revision) USING (event_nid, revision)
    ) = cardinality($3) AND NOT EXISTS (SELECT FROM events WHERE event_id = ANY ($5::text[]))
"""
SELECT_DERIVED_STATES: Final = "SELECT derive_states($1, $2::derived_state[])"
# What was missed is followed by what it was missed by. Where only a place is known, the text tells.
LINK_FOLLOWERS: Final = """
    UPDATE events e SET prev_event_nids = e.prev_event_nids || linked.event_nids
    FROM (
        SELECT follower.event_nid, array_agg(came.event_nid ORDER BY came.event_nid) AS event_nids
        FROM missing_events m
        JOIN events came ON came.event_id = m.event_id
        JOIN events follower ON follower.room_nid = m.room_nid AND follower.topological = m.topological
        WHERE m.room_nid = $1 AND m.topological = ANY ($2::bigint[])
            AND NOT came.event_nid = ANY (follower.prev_event_nids)
            AND names_previous(follower.federation_json, m.event_id)
        GROUP BY follower.event_nid
    ) AS linked
    WHERE e.event_nid = linked.event_nid
"""
# What is known of but not placed yet, because it is older than what is to come before, is still missing.
MOVE_GAPS: Final = """
    UPDATE missing_events m SET topological = moved.lower
    FROM unnest($2::bigint[], $3::bigint[]) AS moved (upper, lower)
    WHERE m.room_nid = $1 AND m.topological = moved.upper AND EXISTS (
        SELECT FROM events e WHERE e.event_id = m.event_id
    )
"""
PLACE_EVENTS: Final = """
    UPDATE events e SET topological = n.topological, state_id = n.state_id,
        prev_event_nids = ARRAY (
            SELECT edge.prev_nid FROM unnest($10::bigint[], $11::bigint[]) AS edge (event_nid, prev_nid)
            WHERE edge.event_nid = n.event_nid
        ),
        rejected = coalesce(e.rejected, n.rejected), soft_failed = n.soft_failed,
        redacted_by = coalesce(e.redacted_by, n.redacted_by), thread_root = n.thread_root,
        client_json = coalesce(n.client_json, e.client_json),
        federation_json = coalesce(n.federation_json, e.federation_json),
        revision = e.revision + 1
    FROM unnest(
        $1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::text[],
        $9::text[]
    ) AS n (
        event_nid, topological, state_id, rejected, soft_failed, redacted_by, thread_root, client_json, federation_json
    )
    WHERE e.event_nid = n.event_nid
"""
INSERT_RELATIONS: Final = """
    INSERT INTO relations (event_nid, room_nid, relates_to, rel_type, key)
    SELECT n.event_nid, $1, n.relates_to, n.rel_type, n.key
    FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS n (event_nid, relates_to, rel_type, key)
    ON CONFLICT DO NOTHING
"""
# What related to an event that was not here belongs to its thread too. What is streamed has been counted elsewhere.
UPDATE_THREAD_ROOTS: Final = """
    UPDATE events child SET thread_root = parent.thread_root, revision = child.revision + 1
    FROM events parent JOIN relations r ON r.relates_to = parent.event_id
    WHERE parent.event_nid = ANY ($1::bigint[]) AND parent.thread_root IS NOT NULL
        AND child.event_nid = r.event_nid AND child.room_nid = parent.room_nid
        AND child.thread_root IS NULL AND child.position IS NULL
"""
# Redactions that have waited in their place in history for what they redact are shown now.
SHOW_REDACTIONS: Final = """
    UPDATE events r SET soft_failed = false, revision = r.revision + 1
    FROM events target
    WHERE target.event_nid = ANY ($1::bigint[]) AND r.event_id = target.redacted_by AND r.room_nid = target.room_nid
        AND r.soft_failed AND r.rejected IS NULL AND r.topological IS NOT NULL
"""
INSERT_PENDING_REDACTIONS: Final = """
    INSERT INTO pending_redactions (room_nid, redacts, redaction_nid)
    SELECT $1, n.redacts, n.redaction_nid FROM unnest($2::text[], $3::bigint[]) AS n (redacts, redaction_nid)
    ON CONFLICT DO NOTHING
"""
REPLACE_EVENTS: Final = """
    UPDATE events e SET redacted_by = coalesce(n.redacted_by, e.redacted_by), client_json = n.client_json,
        federation_json = n.federation_json, revision = e.revision + 1,
        thread_root = CASE WHEN n.redacted_by IS NULL THEN e.thread_root END,
        push_actions_id = CASE WHEN n.redacted_by IS NULL OR e.thread_root IS NULL THEN e.push_actions_id END
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
        AS n (event_nid, redacted_by, client_json, federation_json)
    WHERE e.event_nid = n.event_nid
"""
DELETE_TRACES: Final = """
    WITH related AS (
        DELETE FROM relations WHERE event_nid = ANY ($1::bigint[])
    )
    UPDATE event_push_exceptions SET redacted = true WHERE event_nid = ANY ($1) AND actions IS NOT NULL
"""
RAISE_STATE_VERSION: Final = "UPDATE rooms SET state_version = state_version + 1 WHERE room_nid = $1"


async def place_events(conn: Connection, placement: Placement) -> None:
    """Gives events their place in history, in a transaction.

    Raises:
        RoomChanged: an event is not stored as it was read, what a redaction awaits has come, or a state has been
            collected since; nothing was written.
    """
    room_nid, events = placement.room_nid, list(placement.events.values())
    nids = [event.event_nid for event in events]
    await conn.fetchval(LOCK_ROOM, room_nid)
    is_as_seen = await conn.fetchval(
        SELECT_IS_AS_SEEN,
        nids,
        [event.revision for event in events],
        [event.event_nid for event in placement.replaced_events],
        [event.revision for event in placement.replaced_events],
        [target_id for target_id, _ in placement.awaited],
    )
    if not is_as_seen or not await are_stored(conn, (event.state for event in events if event.state > 0)):
        raise RoomChanged
    state_ids = await _derive_states(conn, room_nid, placement.states)
    await conn.execute(LINK_FOLLOWERS, room_nid, list(placement.gaps))
    await _place(conn, events, state_ids)
    await delete_missing_events(conn, room_nid, placement.events)
    await conn.execute(MOVE_GAPS, room_nid, list(placement.gaps), list(placement.gaps.values()))
    await put_missing_events(conn, room_nid, placement.missing)
    if placement.relations:
        await _insert_relations(conn, room_nid, placement.relations)
    await conn.execute(UPDATE_THREAD_ROOTS, nids)
    await conn.execute(SHOW_REDACTIONS, nids)
    if placement.awaited:
        targets, redaction_nids = zip(*placement.awaited, strict=True)
        await conn.execute(INSERT_PENDING_REDACTIONS, room_nid, targets, redaction_nids)
    if placement.replaced_events:
        await _replace(conn, placement)
    if any(event.texts for event in events):
        # They may be in the current state already, as it was told when this server came into the room.
        await conn.execute(RAISE_STATE_VERSION, room_nid)


async def _derive_states(conn: Connection, room_nid: int, states: Sequence[DerivedState]) -> Sequence[int]:
    derived = []
    for state in states:
        slot_ids = sorted(state.changes)
        derived.append((state.base, slot_ids, [state.changes[slot_id] or 0 for slot_id in slot_ids]))
    return list(await conn.fetchval(SELECT_DERIVED_STATES, room_nid, derived)) if derived else []


async def _place(conn: Connection, events: Sequence[PlacedEvent], state_ids: Sequence[int]) -> None:
    edges = [(event.event_nid, prev_nid) for event in events for prev_nid in event.prev_nids]
    texts = [event.texts or (None, None) for event in events]
    await conn.execute(
        PLACE_EVENTS,
        [event.event_nid for event in events],
        [event.topological for event in events],
        [state_ids[-event.state - 1] if event.state < 0 else event.state for event in events],
        [event.rejected for event in events],
        [event.soft_failed for event in events],
        [event.redacted_by for event in events],
        [event.thread_root for event in events],
        [client_json for client_json, _ in texts],
        [federation_json for _, federation_json in texts],
        [event_nid for event_nid, _ in edges],
        [prev_nid for _, prev_nid in edges],
    )


async def _insert_relations(conn: Connection, room_nid: int, relations: Sequence[NewRelation]) -> None:
    await conn.execute(
        INSERT_RELATIONS,
        room_nid,
        [relation.event for relation in relations],
        [relation.relates_to for relation in relations],
        [relation.rel_type for relation in relations],
        [relation.key for relation in relations],
    )


async def _replace(conn: Connection, placement: Placement) -> None:
    """Gives events in the graph the texts that redactions leave of them."""
    replaced = placement.replaced_events
    await conn.execute(
        REPLACE_EVENTS,
        [event.event_nid for event in replaced],
        [event.redacted_by for event in replaced],
        [event.client_json for event in replaced],
        [event.federation_json for event in replaced],
    )
    await conn.execute(DELETE_TRACES, [event.event_nid for event in replaced if event.redacted_by is not None])
    if placement.is_current_changed:
        await conn.execute(CHANGE_SUMMARY, placement.room_nid, list(placement.summary))
        await conn.execute(RAISE_STATE_VERSION, placement.room_nid)


SELECT_FLOORS: Final = """
    SELECT place.topological, (
        SELECT e.topological FROM events e WHERE e.room_nid = $1 AND e.topological < place.topological
        ORDER BY e.topological DESC LIMIT 1
    ) AS floor
    FROM unnest($2::bigint[]) AS place (topological)
"""


async def find_floors(conn: Connection, room_nid: int, places: Collection[int]) -> dict[int, int]:
    """What stands next before each of some places in a room's history, by place (both `topological`).

    Places before which nothing stands are absent.
    """
    rows = await conn.fetch(SELECT_FLOORS, room_nid, list(places))
    return {row["topological"]: row["floor"] for row in rows if row["floor"] is not None}


SELECT_DEPTHS: Final = "SELECT event_id, depth FROM events WHERE event_id = ANY ($1::text[])"


async def find_depths(conn: Connection, event_ids: Collection[EventId]) -> dict[EventId, int]:
    """The depths of events, as they tell them themselves; those that are not stored are absent."""
    return {EventId(row["event_id"]): row["depth"] for row in await conn.fetch(SELECT_DEPTHS, list(event_ids))}


SELECT_EVENT_AT: Final = (
    "SELECT * FROM stored_events WHERE room_nid = $1 AND topological = $2 ORDER BY event_nid LIMIT 1"
)


async def find_event_at(conn: Connection, room_nid: int, topological: int) -> StoredEvent | None:
    """The event at a place in a room's history."""
    row = await conn.fetchrow(SELECT_EVENT_AT, room_nid, topological)
    return None if row is None else stored_event(row)


@dataclass(frozen=True, slots=True)
class Gap:
    """A place in history before which events are missing, and the time of the event that stands there."""

    topological: int
    origin_server_ts: int


SELECT_GAPS: Final = """
    SELECT gap.topological, at_gap.origin_server_ts
    FROM (SELECT DISTINCT topological FROM missing_events WHERE room_nid = $1) AS gap
    CROSS JOIN LATERAL (
        SELECT e.origin_server_ts FROM events e
        WHERE e.room_nid = $1 AND e.topological = gap.topological
        ORDER BY e.event_nid LIMIT 1
    ) AS at_gap
    ORDER BY gap.topological
    LIMIT $2
"""


async def list_gaps(conn: Connection, room_nid: int, *, limit: int) -> list[Gap]:
    """The gaps in a room's history, the earliest first."""
    return [Gap(*row) for row in await conn.fetch(SELECT_GAPS, room_nid, limit)]


SELECT_SERVERS_OF_MEMBERS: Final = """
    SELECT substring(state_key FROM position(':' IN state_key) + 1) AS server_name
    FROM events
    WHERE event_nid = ANY ($1::bigint[]) AND type = 'm.room.member' AND strpos(client_json, '"membership":"join"') > 0
    GROUP BY server_name
    ORDER BY count(*) DESC, server_name
    LIMIT $2
"""


async def list_servers_of_members(conn: Connection, event_nids: Collection[int], *, limit: int) -> list[ServerName]:
    """The servers of those who are joined by some events of a state, those with the most users first."""
    rows = await conn.fetch(SELECT_SERVERS_OF_MEMBERS, list(event_nids), limit)
    return [ServerName(row["server_name"]) for row in rows]
