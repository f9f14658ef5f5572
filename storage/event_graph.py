"""Walking the graph of events towards the past: by previous events, and by auth events.

A walk never leaves the room in which it started, whatever events claim to follow. `OFFSET 0` keeps the planner from
reading whole tables for the steps of a walk, of which it cannot know how many there will be.
"""

from collections.abc import Collection
from typing import Final

from homeserver.core.ids import EventId
from storage.database import Connection
from storage.events import StoredEvent, stored_event

WALKED_MAX: Final = 2000
"""How many events one walk by previous events looks at."""
_PASSED_OVER: Final = 20

# A recursive query gives out its rows level by level: what is asked for comes first, and then what is closest to it.
SELECT_ANCESTORS: Final = """
    WITH RECURSIVE walk (event_nid) AS (
        SELECT event_nid FROM events
        WHERE event_id = ANY ($2::text[]) AND NOT event_id = ANY ($3::text[]) AND room_nid = $1 AND state_id IS NOT NULL
        UNION
        SELECT earlier.event_nid
        FROM walk, LATERAL (
            SELECT e.prev_event_nids FROM events e WHERE e.event_nid = walk.event_nid OFFSET 0
        ) AS later, unnest(later.prev_event_nids) AS prev (event_nid), LATERAL (
            SELECT e.event_nid FROM events e
            WHERE e.event_nid = prev.event_nid AND e.room_nid = $1 AND e.state_id IS NOT NULL AND e.depth >= $4
                AND NOT e.event_id = ANY ($3)
            OFFSET 0
        ) AS earlier
    ), bounded AS (
        SELECT event_nid FROM walk LIMIT $5
    ), numbered AS (
        SELECT event_nid, row_number() OVER () AS number FROM bounded
    )
    SELECT s.* FROM numbered JOIN stored_events s USING (event_nid)
    WHERE s.rejected IS NULL AND ($6 OR NOT s.event_id = ANY ($2))
    ORDER BY numbered.number
    LIMIT $7
"""


async def list_ancestors(
    conn: Connection,
    room_nid: int,
    event_ids: Collection[EventId],
    *,
    stop_at: Collection[EventId] = (),
    depth_min: int = 0,
    including_start: bool,
    limit: int,
) -> list[StoredEvent]:
    """The events that precede some events of a room, breadth first: the closest first.

    Rejected events are passed over but not stopped at; soft-failed ones are not told apart. Events outside the graph
    are neither started from nor come to.

    Args:
        conn: to read with.
        room_nid: the room; events of other rooms are passed over.
        event_ids: where to start; unknown ones are passed over.
        stop_at: these, and what can be reached only by them, are left out.
        depth_min: likewise, for events of a smaller `depth`.
        including_start: whether `event_ids` themselves are wanted, if they are found.
        limit: how many at most.
    """
    found: list[StoredEvent] = []
    # The second, long walk is for graphs with many events that are passed over.
    for walked_max in (len(event_ids) + limit + _PASSED_OVER, WALKED_MAX):
        rows = await conn.fetch(
            SELECT_ANCESTORS,
            room_nid,
            list(event_ids),
            list(stop_at),
            depth_min,
            walked_max,
            including_start,
            limit,
        )
        found = [stored_event(row) for row in rows]
        if len(found) >= limit:
            break
    return found


SELECT_AUTH_CHAIN: Final = """
    WITH RECURSIVE chain (event_nid) AS (
        SELECT cited.event_nid FROM events e, unnest(e.auth_event_nids) AS cited (event_nid)
        WHERE e.event_nid = ANY ($1::bigint[])
        UNION
        SELECT cited.event_nid
        FROM chain, LATERAL (
            SELECT e.auth_event_nids FROM events e
            WHERE e.event_nid = chain.event_nid AND e.room_nid = $2 AND e.rejected IS NULL
            OFFSET 0
        ) AS citing, unnest(citing.auth_event_nids) AS cited (event_nid)
    )
    SELECT coalesce(array_agg(told.event_nid ORDER BY told.event_nid), '{}')
    FROM chain, LATERAL (
        SELECT e.event_nid FROM events e
        WHERE e.event_nid = chain.event_nid AND e.room_nid = $2 AND e.rejected IS NULL
        OFFSET 0
    ) AS told
"""


async def list_auth_chain(conn: Connection, room_nid: int, event_nids: Collection[int]) -> list[int]:
    """The auth events of some events of a room, and theirs, and so on (`event_nid`), in the order of their arrival.

    The events themselves are among them only if another of them refers to them. Its bound is the room's state events.
    """
    return list(await conn.fetchval(SELECT_AUTH_CHAIN, list(event_nids), room_nid))
