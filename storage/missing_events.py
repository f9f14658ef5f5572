"""Where the graphs of rooms have gaps: previous events that are not there.

`append_events` adds and removes them, and so does whoever fetches history.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.errors import NotFound
from homeserver.core.ids import EventId, RoomId
from storage.database import Connection
from storage.rooms import RoomRow, room_row


@dataclass(frozen=True, slots=True)
class MissingEvent:
    """An event that is not in the graph though one refers to it.

    Attributes:
        topological: a place in history before which it comes: where the first event stands that refers to it, or an
            earlier one.
        failures: how often nobody had it who was asked.
        depth: its own, if it is stored outside the graph.
    """

    event_id: EventId
    topological: int
    failures: int
    depth: int | None


SELECT_MISSING_EVENTS: Final = """
    SELECT m.event_id, m.topological, m.failures, e.depth
    FROM missing_events m LEFT JOIN events e USING (event_id)
    WHERE m.room_nid = $1 AND m.topological <= $2 AND (NOT $4 OR m.retry_at <= now())
    ORDER BY m.topological DESC, e.depth DESC NULLS FIRST, m.event_id
    LIMIT $3
"""


async def list_missing_events(
    conn: Connection, room_nid: int, *, upto: int, limit: int, due_only: bool = False
) -> list[MissingEvent]:
    """What is missing before a place in a room's history (`topological`), the nearest to it first.

    With `due_only`, what has been asked for in vain of late is passed over.
    """
    rows = await conn.fetch(SELECT_MISSING_EVENTS, room_nid, upto, limit, due_only)
    return [MissingEvent(EventId(row["event_id"]), row["topological"], row["failures"], row["depth"]) for row in rows]


SELECT_PLACES_OF_MISSING: Final = """
    SELECT event_id, topological FROM missing_events WHERE room_nid = $1 AND event_id = ANY ($2::text[])
"""


async def find_places_of_missing(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> dict[EventId, int]:
    """Before which place in history (`topological`) events are missing; those that are not missed are absent."""
    rows = await conn.fetch(SELECT_PLACES_OF_MISSING, room_nid, list(event_ids))
    return {EventId(row["event_id"]): row["topological"] for row in rows}


SELECT_DEPTHS_IN_GAPS: Final = """
    SELECT m.event_id, e.depth FROM missing_events m JOIN events e USING (event_id)
    WHERE m.room_nid = $1 AND m.retry_at <= now() AND m.topological IN (
        SELECT topological FROM missing_events WHERE room_nid = $1 AND event_id = ANY ($2::text[])
    )
"""


async def find_depths_in_gaps(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> dict[EventId, int]:
    """The depths of all that is missing in the same gaps as some events, as far as it is stored outside the graph.

    What has been asked for in vain of late does not count.
    """
    rows = await conn.fetch(SELECT_DEPTHS_IN_GAPS, room_nid, list(event_ids))
    return {EventId(row["event_id"]): row["depth"] for row in rows}


UPSERT_MISSING_EVENTS: Final = """
    INSERT INTO missing_events (room_nid, event_id, topological)
    SELECT $1, missing.event_id, missing.topological
    FROM unnest($2::text[], $3::bigint[]) AS missing (event_id, topological)
    WHERE NOT EXISTS (SELECT FROM events e WHERE e.event_id = missing.event_id AND e.state_id IS NOT NULL)
    ORDER BY missing.event_id
    ON CONFLICT (room_nid, event_id) DO UPDATE SET topological = least(missing_events.topological, excluded.topological)
"""


async def put_missing_events(conn: Connection, room_nid: int, places: Mapping[EventId, int]) -> None:
    """Notes before which places (`topological`) events are missing, as far as they are not in the graph."""
    await conn.execute(UPSERT_MISSING_EVENTS, room_nid, list(places), list(places.values()))


UPDATE_TRIED: Final = """
    UPDATE missing_events SET failures = failures + 1,
        retry_at = now() + power(4, least(failures, 5)) * interval '1 minute'
    WHERE room_nid = $1 AND event_id = ANY ($2::text[])
"""


async def note_tried(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> None:
    """Notes that nobody had events; so nobody is asked for them for a time, from a minute to most of a day."""
    await conn.execute(UPDATE_TRIED, room_nid, list(event_ids))


DELETE_MISSING_EVENTS: Final = "DELETE FROM missing_events WHERE room_nid = $1 AND event_id = ANY ($2::text[])"


async def delete_missing_events(conn: Connection, room_nid: int, event_ids: Collection[EventId]) -> None:
    """Notes that events are in the graph now."""
    await conn.execute(DELETE_MISSING_EVENTS, room_nid, list(event_ids))


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an event finds that comes to a room.

    Attributes:
        room: the room as it is now.
        is_followed: an event in the graph refers to it; it has been missing.
        is_awaited: redactions wait for it.
        is_stored: it is stored already, in the graph or outside.
    """

    room: RoomRow
    is_followed: bool
    is_awaited: bool
    is_stored: bool


SELECT_ARRIVAL: Final = """
    SELECT r.room_nid, r.room_id, r.room_version, r.state_version, r.state_id, r.forward_extremities,
        EXISTS (SELECT FROM missing_events m WHERE m.room_nid = r.room_nid AND m.event_id = $2) AS is_followed,
        EXISTS (SELECT FROM pending_redactions p WHERE p.room_nid = r.room_nid AND p.redacts = $2) AS is_awaited,
        EXISTS (SELECT FROM events e WHERE e.event_id = $2) AS is_stored
    FROM rooms r WHERE r.room_id = $1
"""


async def find_arrival(conn: Connection, room_id: RoomId, event_id: EventId) -> Arrival:
    """What an event finds.

    Raises:
        NotFound: this server has never heard of the room.
    """
    row = await conn.fetchrow(SELECT_ARRIVAL, room_id, event_id)
    if row is None:
        raise NotFound("Unknown room")
    return Arrival(room_row(row), row["is_followed"], row["is_awaited"], row["is_stored"])


SELECT_COVERED: Final = "SELECT covered_events($1::bigint[])"


async def find_covered(conn: Connection, prev_nids: Collection[int]) -> frozenset[int]:
    """What nothing new need refer to any more once an event follows some others.

    That is these, and what lies before those of them that were rejected or soft-failed.
    """
    return frozenset(await conn.fetchval(SELECT_COVERED, list(prev_nids)))
