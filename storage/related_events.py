"""Paging through the events that relate to another, and through the threads of a room.

Redacted events relate to nothing any more; rejected and soft-failed ones have no place in the history.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, UserId
from homeserver.core.tokens import HistoryToken
from storage.database import Connection
from storage.events import StoredEvent, stored_event
from storage.history import Direction, HistorySpan

_RELATED: Final = """
    WITH RECURSIVE related (event_nid, event_id, depth) AS (
        SELECT child.event_nid, child.event_id, 1
        FROM relations r JOIN events child USING (event_nid)
        WHERE r.relates_to = $6 AND child.room_nid = $1 AND child.topological IS NOT NULL
            AND ($7::text IS NULL OR r.rel_type = $7) AND ($8::text IS NULL OR child.type = $8)
        UNION
        SELECT child.event_nid, child.event_id, related.depth + 1
        FROM related
        JOIN relations r ON r.relates_to = related.event_id
        JOIN events child ON child.event_nid = r.event_nid
        WHERE child.room_nid = $1 AND child.topological IS NOT NULL AND related.depth < $9
            AND ($7::text IS NULL OR r.rel_type = $7) AND ($8::text IS NULL OR child.type = $8)
    )
    SELECT e.* FROM stored_events e
    WHERE e.event_nid IN (SELECT related.event_nid FROM related) AND e.event_id <> $6
        AND (e.topological, e.event_nid) > ($2::bigint, $3::bigint)
        AND (e.topological, e.event_nid) <= ($4::bigint, $5::bigint)
"""
SELECT_RELATED_BACKWARDS: Final = f"{_RELATED} ORDER BY e.topological DESC, e.event_nid DESC LIMIT $10"
SELECT_RELATED_FORWARDS: Final = f"{_RELATED} ORDER BY e.topological, e.event_nid LIMIT $10"


async def list_related(
    conn: Connection,
    event_id: EventId,
    span: HistorySpan,
    direction: Direction,
    *,
    rel_type: str | None,
    event_type: str | None,
    depth_max: int,
    limit: int,
) -> list[StoredEvent]:
    """The first events of a span that relate to an event, directly or through others that are wanted too.

    Args:
        event_id: the event that they relate to, of the same room.
        span: where in the room's history.
        direction: from which end of it.
        rel_type: the wanted relationship; None for any.
        event_type: the wanted type of events; None for any.
        depth_max: 1 for direct relationships only.
        limit: how many events at most.
    """
    rows = await conn.fetch(
        SELECT_RELATED_BACKWARDS if direction is Direction.BACKWARDS else SELECT_RELATED_FORWARDS,
        span.room_nid,
        span.after.topological,
        span.after.event_nid,
        span.upto.topological,
        span.upto.event_nid,
        event_id,
        rel_type,
        event_type,
        depth_max,
        limit,
    )
    return [stored_event(row) for row in rows]


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread: its root, and the point of the room's history where its latest event stands."""

    root: StoredEvent
    latest: HistoryToken


SELECT_THREADS: Final = """
    SELECT root.*, thread.latest
    FROM (
        SELECT r.relates_to, max(ARRAY[child.topological, child.event_nid]) AS latest,
            bool_or(child.sender = $4) AS is_participant
        FROM relations r JOIN events child USING (event_nid)
        WHERE r.room_nid = $1 AND r.rel_type = 'm.thread' AND child.topological IS NOT NULL
            AND child.sender <> ALL ($5::text[]) AND (child.topological, child.event_nid) <= ($8::bigint, $9::bigint)
        GROUP BY r.relates_to
    ) thread
    JOIN stored_events root ON root.event_id = thread.relates_to
    WHERE root.room_nid = $1 AND root.topological IS NOT NULL AND thread.latest <= ARRAY[$2::bigint, $3::bigint]
        AND (NOT $6 OR thread.is_participant OR root.sender = $4)
    ORDER BY thread.latest DESC
    LIMIT $7
"""


async def list_threads(
    conn: Connection,
    room_nid: int,
    *,
    sight: HistoryToken,
    upto: HistoryToken,
    reader: UserId,
    ignored_users: Collection[UserId],
    participated_only: bool,
    limit: int,
) -> list[ThreadRow]:
    """The threads of a room, that with the latest event first.

    Args:
        room_nid: the room.
        sight: events behind this point do not count.
        upto: only threads whose latest event stands before this point.
        reader: who asks.
        ignored_users: users whose events do not count.
        participated_only: only threads in which the reader has sent the root or another event.
        limit: how many at most.
    """
    rows = await conn.fetch(
        SELECT_THREADS,
        room_nid,
        upto.topological,
        upto.event_nid,
        reader,
        list(ignored_users),
        participated_only,
        limit,
        sight.topological,
        sight.event_nid,
    )
    return [ThreadRow(stored_event(row), HistoryToken(*row["latest"])) for row in rows]
