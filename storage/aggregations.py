"""Reading the children of events for bundled aggregations.

Children outside a room's history (rejected, soft-failed) and redacted ones do not count: the former have no place in
the history, the latter no relation any more.

https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, UserId
from storage.database import Connection

REFERENCES_MAX: Final = 500
"""How many references of one event are told at most."""

SELECT_REPLACEMENTS: Final = """
    SELECT DISTINCT ON (r.relates_to) r.relates_to, child.event_nid
    FROM events parent
    JOIN relations r ON r.relates_to = parent.event_id AND r.rel_type = 'm.replace'
    JOIN events child ON child.event_nid = r.event_nid
    WHERE parent.event_id = ANY ($1::text[])
        AND child.room_nid = parent.room_nid AND child.sender = parent.sender AND child.type = parent.type
        AND parent.state_key IS NULL AND child.state_key IS NULL AND child.topological IS NOT NULL
        AND NOT EXISTS (SELECT FROM relations own WHERE own.event_nid = parent.event_nid AND own.rel_type = 'm.replace')
        -- The text is canonical JSON, so this finds the member; the database's JSON functions fail at NUL characters.
        AND (child.type = 'm.room.encrypted' OR strpos(child.client_json, '"m.new_content":{') > 0)
    ORDER BY r.relates_to, child.origin_server_ts DESC, child.event_id DESC
"""


async def find_replacements(conn: Connection, event_ids: Collection[EventId]) -> Mapping[EventId, int]:
    """The most recent valid replacement of each event, as event_nid; events without one are absent.

    https://spec.matrix.org/v1.19/client-server-api/#event-replacements
    """
    if not event_ids:
        return {}
    rows = await conn.fetch(SELECT_REPLACEMENTS, list(event_ids))
    return {EventId(row["relates_to"]): row["event_nid"] for row in rows}


SELECT_PARENTS: Final = """
    SELECT DISTINCT relates_to FROM relations
    WHERE relates_to = ANY ($1::text[]) AND rel_type IN ('m.thread', 'm.reference')
"""


async def list_parents(conn: Connection, event_ids: Collection[EventId]) -> set[EventId]:
    """Those of some events that may be roots of threads or be referred to."""
    if not event_ids:
        return set()
    return {EventId(row["relates_to"]) for row in await conn.fetch(SELECT_PARENTS, list(event_ids))}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a room's history that the reader may see, by the topological order; both ends belong to it."""

    room_nid: int
    first: int
    last: int


SELECT_THREADS: Final = """
    SELECT parent.event_id, thread.latest_event_nid, thread.count, thread.is_participant OR parent.sender = $2 AS
        is_participant
    FROM events parent
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, bool_or(child.sender = $2) AS is_participant,
            (array_agg(child.event_nid ORDER BY child.topological DESC, child.event_nid DESC))[1] AS latest_event_nid
        FROM relations r JOIN events child USING (event_nid)
        WHERE r.relates_to = parent.event_id AND r.rel_type = 'm.thread' AND child.room_nid = parent.room_nid
            AND child.sender <> ALL ($3::text[])
            AND EXISTS (
                SELECT FROM unnest($4::integer[], $5::bigint[], $6::bigint[]) AS seen (room_nid, first, last)
                WHERE seen.room_nid = parent.room_nid AND child.topological BETWEEN seen.first AND seen.last)
    ) thread
    WHERE parent.event_id = ANY ($1::text[]) AND thread.count > 0
"""


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """A thread as one reader sees it."""

    latest_event_nid: int
    count: int
    is_participant: bool


async def find_threads(
    conn: Connection,
    event_ids: Collection[EventId],
    *,
    reader: UserId,
    ignored_users: Collection[UserId],
    seen: Sequence[Span],
) -> Mapping[EventId, ThreadCounts]:
    """The threads of those events that are roots of one; what ignored users sent, or is not `seen`, does not count."""
    rows = await conn.fetch(SELECT_THREADS, list(event_ids), reader, list(ignored_users), *_columns(seen))
    return {
        EventId(row["event_id"]): ThreadCounts(row["latest_event_nid"], row["count"], row["is_participant"])
        for row in rows
    }


SELECT_REFERENCES: Final = """
    SELECT parent.event_id, ARRAY (
        SELECT child.event_id
        FROM relations r JOIN events child USING (event_nid)
        WHERE r.relates_to = parent.event_id AND r.rel_type = 'm.reference' AND child.room_nid = parent.room_nid
            AND child.sender <> ALL ($2::text[])
            AND EXISTS (
                SELECT FROM unnest($4::integer[], $5::bigint[], $6::bigint[]) AS seen (room_nid, first, last)
                WHERE seen.room_nid = parent.room_nid AND child.topological BETWEEN seen.first AND seen.last)
        ORDER BY child.event_nid
        LIMIT $3
    ) AS referrers
    FROM events parent
    WHERE parent.event_id = ANY ($1::text[])
"""


async def find_references(
    conn: Connection, event_ids: Collection[EventId], *, ignored_users: Collection[UserId], seen: Sequence[Span]
) -> Mapping[EventId, Sequence[EventId]]:
    """The events that refer to each event as `m.reference`, oldest first; events without any are absent.

    What ignored users sent, or is not `seen`, is left out.
    """
    ignored = list(ignored_users)
    rows = await conn.fetch(SELECT_REFERENCES, list(event_ids), ignored, REFERENCES_MAX, *_columns(seen))
    return {EventId(row["event_id"]): [EventId(each) for each in row["referrers"]] for row in rows if row["referrers"]}


def _columns(spans: Sequence[Span]) -> tuple[list[int], list[int], list[int]]:
    return [span.room_nid for span in spans], [span.first for span in spans], [span.last for span in spans]
