"""The events that a user was notified of, newest first.

They come from the user's rooms, where most notify whoever is joined, and from the rows of what they do for this user.

https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """An event that notified a user; the actions are JSON."""

    event_nid: int
    actions: str


@dataclass(frozen=True, slots=True)
class NotificationPage:
    """Some of the events that notified a user.

    Attributes:
        rows: the newest first.
        rest: all others that are older than the page's beginning are older than this event too; None if there are none.
    """

    rows: Sequence[NotificationRow]
    rest: int | None


# Of each room a number of events is looked at. What is older than the oldest of them has to wait for another page.
SELECT_NOTIFICATIONS: Final = """
    WITH room AS MATERIALIZED (
        SELECT m.room_nid, greatest(m.joined_nid, swept.event_nid) AS first_nid
        FROM memberships m
        LEFT JOIN LATERAL (
            SELECT CASE WHEN x.actions IS NULL THEN x.event_nid END AS event_nid FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.room_nid = m.room_nid
            ORDER BY x.event_nid LIMIT 1
        ) swept ON true
        WHERE m.user_id = $1 AND m.membership = 'join'
    ), last AS MATERIALIZED (
        -- Between rooms, positions follow event_nid nearly but not quite.
        SELECT max(position) AS position FROM (
            SELECT position FROM events WHERE event_nid < $2 AND position IS NOT NULL ORDER BY event_nid DESC LIMIT 100
        ) AS nearest
    ), scanned AS MATERIALIZED (
        SELECT e.*, room.first_nid FROM room CROSS JOIN last CROSS JOIN LATERAL (
            SELECT e.room_nid, e.event_nid, e.push_actions_id, e.sender, e.redacted_by FROM events e
            WHERE e.room_nid = room.room_nid AND e.position <= last.position
            ORDER BY e.position DESC, e.event_nid DESC LIMIT $4
        ) e
    ), horizon AS (
        SELECT max(oldest) AS event_nid FROM (
            SELECT min(event_nid) AS oldest FROM scanned
            GROUP BY room_nid, first_nid HAVING count(*) = $4 AND min(event_nid) > first_nid
        ) AS unfinished
    ), notification AS (
        SELECT s.event_nid, a.actions
        FROM scanned s JOIN push_actions a ON a.actions_id = s.push_actions_id
        WHERE s.event_nid > s.first_nid AND s.event_nid < $2 AND s.redacted_by IS NULL AND s.sender <> $1
            AND NOT EXISTS (
                SELECT FROM event_push_exceptions x
                WHERE x.user_id = $1 AND x.room_nid = s.room_nid AND x.event_nid = s.event_nid
            )
        UNION ALL
        (
            SELECT x.event_nid, x.actions FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.event_nid < $2 AND x.notify AND NOT x.redacted AND x.actions IS NOT NULL
            ORDER BY x.event_nid DESC LIMIT $3
        )
    )
    SELECT horizon.event_nid AS horizon, n.event_nid, n.actions
    FROM horizon LEFT JOIN LATERAL (
        SELECT n.event_nid, n.actions FROM notification n WHERE n.event_nid >= coalesce(horizon.event_nid, 0)
        ORDER BY n.event_nid DESC LIMIT $3
    ) n ON true
    ORDER BY n.event_nid DESC
"""
_SCANNED_PER_ROOM: Final = 200


async def list_notifications(conn: Connection, user_id: UserId, *, before: int, limit: int) -> NotificationPage:
    """Events before one (`event_nid`) that notified a user, not more than `limit`; the page may be empty and go on."""
    rows = await conn.fetch(SELECT_NOTIFICATIONS, user_id, before, limit, max(_SCANNED_PER_ROOM, limit))
    found = _found(rows)
    if len(found) == limit:
        return NotificationPage(found, found[-1].event_nid)
    horizon: int | None = rows[0]["horizon"]
    return NotificationPage(found, None if horizon is None or horizon >= before else horizon)


SELECT_HIGHLIGHTS: Final = """
    WITH room AS MATERIALIZED (
        SELECT m.room_nid, greatest(m.joined_nid, swept.event_nid) AS event_nid
        FROM memberships m
        LEFT JOIN LATERAL (
            SELECT CASE WHEN x.actions IS NULL THEN x.event_nid END AS event_nid FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.room_nid = m.room_nid
            ORDER BY x.event_nid LIMIT 1
        ) swept ON true
        WHERE m.user_id = $1 AND m.membership = 'join'
    ), notification AS (
        SELECT e.event_nid, a.actions
        FROM room CROSS JOIN LATERAL (
            SELECT e.event_nid, e.push_actions_id FROM events e
            WHERE e.room_nid = room.room_nid AND e.event_nid > room.event_nid AND e.event_nid < $2
                AND e.push_actions_id < 0 AND e.redacted_by IS NULL AND e.sender <> $1 AND NOT EXISTS (
                    SELECT FROM event_push_exceptions x
                    WHERE x.user_id = $1 AND x.room_nid = e.room_nid AND x.event_nid = e.event_nid
                )
            ORDER BY e.event_nid DESC LIMIT $3
        ) e JOIN push_actions a ON a.actions_id = e.push_actions_id
        UNION ALL
        (
            SELECT x.event_nid, x.actions FROM event_push_exceptions x
            WHERE x.user_id = $1 AND x.event_nid < $2 AND x.notify AND NOT x.redacted AND x.highlight
                AND x.actions IS NOT NULL
            ORDER BY x.event_nid DESC LIMIT $3
        )
    )
    SELECT n.event_nid, n.actions FROM notification n ORDER BY n.event_nid DESC LIMIT $3
"""


async def list_highlights(conn: Connection, user_id: UserId, *, before: int, limit: int) -> NotificationPage:
    """As `list_notifications`, but only highlighted events."""
    found = _found(await conn.fetch(SELECT_HIGHLIGHTS, user_id, before, limit))
    return NotificationPage(found, found[-1].event_nid if len(found) == limit else None)


def _found(rows: Sequence[Row]) -> list[NotificationRow]:
    return [NotificationRow(row["event_nid"], row["actions"]) for row in rows if row["event_nid"] is not None]


SELECT_READ: Final = """
    SELECT e.event_nid FROM events e
    WHERE e.event_nid = ANY ($2::bigint[]) AND (
        EXISTS (
            SELECT FROM receipts r
            WHERE r.user_id = $1 AND r.room_nid = e.room_nid AND r.event_nid >= e.event_nid
                AND r.thread_id IN ('', coalesce(e.thread_root, 'main'))
        )
        OR EXISTS (
            SELECT FROM events own
            WHERE own.sender = $1 AND own.room_nid = e.room_nid AND own.event_nid > e.event_nid
                AND (own.thread_root = e.thread_root OR own.thread_root IS NULL AND e.thread_root IS NULL)
                AND own.transaction_id IS NOT NULL AND own.redacted_by IS NULL AND own.type <> 'm.room.redaction'
        )
    )
"""


async def list_read(conn: Connection, user_id: UserId, event_nids: Collection[int]) -> frozenset[int]:
    """Those of some events that a user has read, by a receipt or by sending something later."""
    rows = await conn.fetch(SELECT_READ, user_id, list(event_nids))
    return frozenset(row["event_nid"] for row in rows)
