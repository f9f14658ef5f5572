"""Reading the events of rooms in the order of the stream, for those who listen to single events."""

from collections.abc import Collection
from typing import Final

from storage.database import Connection
from storage.events import StoredEvent, stored_event

# What was written together has one position and is never torn apart.
SELECT_STREAMED_EVENTS: Final = """
    WITH wanted AS (
        SELECT position FROM events
        WHERE room_nid = ANY ($1::integer[]) AND position >= $2 AND position < $3
        ORDER BY position, event_nid
        OFFSET $4 LIMIT 1
    )
    SELECT e.* FROM stored_events e
    WHERE e.room_nid = ANY ($1::integer[]) AND e.position >= $2 AND e.position < $3
        AND e.position <= coalesce((SELECT wanted.position FROM wanted), $3)
    ORDER BY e.position, e.event_nid
"""


async def list_streamed_events(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int, limit: int
) -> list[StoredEvent]:
    """The events of some rooms from one position on and below another, oldest first.

    If there are more than the limit, they end with all that was written together with the first that is too many.
    """
    if not room_nids:
        return []
    rows = await conn.fetch(SELECT_STREAMED_EVENTS, list(room_nids), since, upto, limit)
    return [stored_event(row) for row in rows]
