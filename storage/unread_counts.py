"""How many events of a room a user has not read and is notified of.

A user has read a thread (the main timeline is one) up to the furthest of: the event of joining, a receipt that regards
no threads, a receipt for the thread, and the last event that the user has sent into it.

For the main timeline the counts are differences of running totals, so they cost the same however much is unread; see
`migrations/0005_push.up.sql`. Events of threads are counted singly, the newest ten thousand of a room.

https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, UserId
from storage.database import Connection

SELECT_UNREAD_COUNTS: Final = """
    WITH room AS MATERIALIZED (
        SELECT m.room_nid, greatest(m.joined_nid, swept.event_nid, receipt.unthreaded) AS read_nid,
            greatest(m.joined_nid, swept.event_nid, receipt.unthreaded, receipt.main, sent.event_nid) AS main_read_nid
        FROM memberships m
        CROSS JOIN LATERAL (
            SELECT max(r.event_nid) FILTER (WHERE r.thread_id = '') AS unthreaded,
                max(r.event_nid) FILTER (WHERE r.thread_id = 'main') AS main
            FROM receipts r WHERE r.user_id = $1 AND r.room_nid = m.room_nid
        ) receipt
        CROSS JOIN LATERAL (
            SELECT max(e.event_nid) AS event_nid FROM events e
            WHERE e.sender = $1 AND e.room_nid = m.room_nid AND e.thread_root IS NULL
                AND e.transaction_id IS NOT NULL AND e.redacted_by IS NULL AND e.type <> 'm.room.redaction'
        ) sent
        LEFT JOIN LATERAL (
            SELECT CASE WHEN x.actions IS NULL THEN x.event_nid END AS event_nid FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.room_nid = m.room_nid
            ORDER BY x.event_nid LIMIT 1
        ) swept ON true
        WHERE m.user_id = $1 AND m.room_nid = ANY ($2::integer[]) AND m.membership = 'join'
    ), thread_event AS MATERIALIZED (
        SELECT room.room_nid, e.thread_root, e.event_nid, 1 AS notify, (e.push_actions_id < 0)::integer AS highlight
        FROM room CROSS JOIN LATERAL (
            SELECT e.thread_root, e.event_nid, e.push_actions_id FROM events e
            WHERE e.room_nid = room.room_nid AND e.event_nid > room.read_nid
                AND e.push_actions_id IS NOT NULL AND e.thread_root IS NOT NULL AND e.sender <> $1
            ORDER BY e.event_nid DESC LIMIT 10000
        ) e
        UNION ALL
        SELECT room.room_nid, x.thread_root, x.event_nid, x.notify_delta, x.highlight_delta
        FROM room CROSS JOIN LATERAL (
            SELECT x.thread_root, x.event_nid, x.notify_delta, x.highlight_delta FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.room_nid = room.room_nid AND x.event_nid > room.read_nid
                AND x.thread_root IS NOT NULL AND NOT x.redacted
            ORDER BY x.event_nid DESC LIMIT 10000
        ) x
    ), thread AS (
        SELECT t.room_nid, t.thread_root, greatest(receipt.event_nid, sent.event_nid, 0) AS read_nid
        FROM (SELECT DISTINCT room_nid, thread_root FROM thread_event) t
        CROSS JOIN LATERAL (
            SELECT max(r.event_nid) AS event_nid FROM receipts r
            WHERE r.user_id = $1 AND r.room_nid = t.room_nid AND r.thread_id = t.thread_root
        ) receipt
        CROSS JOIN LATERAL (
            SELECT max(e.event_nid) AS event_nid FROM events e
            WHERE e.sender = $1 AND e.room_nid = t.room_nid AND e.thread_root = t.thread_root
                AND e.transaction_id IS NOT NULL AND e.redacted_by IS NULL AND e.type <> 'm.room.redaction'
        ) sent
    )
    SELECT room.room_nid, NULL AS thread_root,
        coalesce(newest.notifying_count - at_read.notifying_count, 0) - redacted.notify
            + coalesce(own.notify_total, 0) - coalesce(own_at_read.notify_total, 0) - own_redacted.notify AS notify,
        highlighted.highlight
            + coalesce(own.highlight_total, 0) - coalesce(own_at_read.highlight_total, 0) - own_redacted.highlight
            AS highlight
    FROM room
    LEFT JOIN LATERAL (
        SELECT e.notifying_count FROM events e WHERE e.room_nid = room.room_nid AND e.position IS NOT NULL
        ORDER BY e.position DESC, e.event_nid DESC LIMIT 1
    ) newest ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(max(e.notifying_count), 0) AS notifying_count FROM events e
        WHERE e.event_nid = room.main_read_nid
    ) at_read
    CROSS JOIN LATERAL (
        SELECT count(*) AS notify FROM events e
        WHERE e.room_nid = room.room_nid AND e.event_nid > room.main_read_nid
            AND e.redacted_by IS NOT NULL AND e.push_actions_id IS NOT NULL
    ) redacted
    CROSS JOIN LATERAL (
        SELECT count(*) AS highlight FROM events e
        WHERE e.room_nid = room.room_nid AND e.event_nid > room.main_read_nid
            AND e.push_actions_id < 0 AND e.redacted_by IS NULL AND e.thread_root IS NULL
    ) highlighted
    LEFT JOIN LATERAL (
        SELECT x.notify_total, x.highlight_total FROM event_push_exceptions x
        WHERE x.user_id = $1 AND x.room_nid = room.room_nid
        ORDER BY x.event_nid DESC LIMIT 1
    ) own ON true
    LEFT JOIN LATERAL (
        SELECT x.notify_total, x.highlight_total FROM event_push_exceptions x
        WHERE x.user_id = $1 AND x.room_nid = room.room_nid AND x.event_nid <= room.main_read_nid
        ORDER BY x.event_nid DESC LIMIT 1
    ) own_at_read ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(x.notify_delta), 0) AS notify, coalesce(sum(x.highlight_delta), 0) AS highlight
        FROM event_push_exceptions x
        WHERE x.user_id = $1 AND x.room_nid = room.room_nid AND x.event_nid > room.main_read_nid
            AND x.redacted AND x.thread_root IS NULL
    ) own_redacted
    UNION ALL
    SELECT e.room_nid, e.thread_root, sum(e.notify), sum(e.highlight)
    FROM thread_event e JOIN thread t USING (room_nid, thread_root)
    WHERE e.event_nid > t.read_nid
    GROUP BY e.room_nid, e.thread_root
"""


@dataclass(frozen=True, slots=True)
class UnreadRow:
    """What is unread of one thread of a room; `thread_root` is None for the main timeline."""

    room_nid: int
    thread_root: EventId | None
    notification_count: int
    highlight_count: int


async def list_unread_counts(conn: Connection, user_id: UserId, room_nids: Collection[int]) -> list[UnreadRow]:
    """What a user has not read of those of some rooms that it is joined to.

    The main timeline of each such room is among the rows, even if nothing is unread; of threads only some that have
    unread events.
    """
    return [
        UnreadRow(
            room_nid=row["room_nid"],
            thread_root=None if row["thread_root"] is None else EventId(row["thread_root"]),
            notification_count=max(0, row["notify"]),
            highlight_count=max(0, row["highlight"]),
        )
        for row in await conn.fetch(SELECT_UNREAD_COUNTS, user_id, list(room_nids))
    ]
