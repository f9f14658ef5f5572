"""Read receipts: up to which event users have read, for whole rooms and for single threads.

https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import EventId, RoomId, UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class ReceiptTarget:
    """An event as receipts see it.

    Attributes:
        event_nid: its number if it stands in the stream, else 0: it comes before all that do.
        topological: where it stands in the room's history, which orders those with the same `event_nid`.
        thread_root: the root of the thread that it belongs to; None for the main timeline.
    """

    event_id: EventId
    room_nid: int
    event_nid: int
    topological: int
    thread_root: EventId | None

    @property
    def order(self) -> tuple[int, int]:
        """Where a receipt stands that is put on the event; receipts only go forwards."""
        return (self.event_nid, self.topological)


SELECT_TARGETS: Final = """
    SELECT event_id, room_nid, thread_root, coalesce(topological, 0) AS topological,
        CASE WHEN position IS NULL THEN 0 ELSE event_nid END AS event_nid
    FROM events WHERE event_id = ANY ($1::text[]) AND rejected IS NULL AND NOT soft_failed
"""


async def list_targets(conn: Connection, event_ids: Collection[str]) -> dict[EventId, ReceiptTarget]:
    """Those of the events that are known and accepted."""
    rows = await conn.fetch(SELECT_TARGETS, list(event_ids))
    targets = (
        ReceiptTarget(
            event_id=EventId(row["event_id"]),
            room_nid=row["room_nid"],
            event_nid=row["event_nid"],
            topological=row["topological"],
            thread_root=None if row["thread_root"] is None else EventId(row["thread_root"]),
        )
        for row in rows
    )
    return {target.event_id: target for target in targets}


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt.

    Attributes:
        receipt_type: `m.read` or `m.read.private`.
        thread_id: `main` or a thread's root; None for a receipt that regards no threads.
        event_nid: of the event, as in `ReceiptTarget`; None if this server does not know the event.
        receipt_ts: when it was put there, in milliseconds.
    """

    room_nid: int
    user_id: UserId
    receipt_type: str
    thread_id: str | None
    event_id: EventId
    event_nid: int | None
    topological: int | None
    receipt_ts: int


@dataclass(frozen=True, slots=True)
class WrittenReceipt:
    """A receipt that has moved."""

    room_nid: int
    receipt_type: str
    position: int


UPSERT_RECEIPTS: Final = """
    INSERT INTO receipts (room_nid, user_id, receipt_type, thread_id, event_id, event_nid, topological, receipt_ts)
    SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                         $8::bigint[]) AS r (a, b, c, d, e, f, g, h)
    ORDER BY a, b, c, d
    ON CONFLICT (room_nid, user_id, receipt_type, thread_id) DO UPDATE SET
        event_id = excluded.event_id, event_nid = excluded.event_nid, topological = excluded.topological,
        receipt_ts = excluded.receipt_ts, position = stream_position()
        WHERE receipts.event_id <> excluded.event_id AND CASE
            WHEN excluded.event_nid IS NULL THEN receipts.receipt_ts < excluded.receipt_ts
            WHEN receipts.event_nid IS NULL THEN true
            ELSE (receipts.event_nid, receipts.topological) < (excluded.event_nid, excluded.topological)
        END
    RETURNING room_nid, receipt_type, position
"""


async def upsert_receipts(conn: Connection, receipts: Sequence[ReceiptRow]) -> list[WrittenReceipt]:
    """Moves receipts forwards, no two for the same user, room, type and thread; returns those that have moved.

    A receipt on an unknown event has no order: then the later one counts.
    """
    rows = await conn.fetch(
        UPSERT_RECEIPTS,
        [receipt.room_nid for receipt in receipts],
        [receipt.user_id for receipt in receipts],
        [receipt.receipt_type for receipt in receipts],
        [receipt.thread_id or "" for receipt in receipts],
        [receipt.event_id for receipt in receipts],
        [receipt.event_nid for receipt in receipts],
        [receipt.topological for receipt in receipts],
        [receipt.receipt_ts for receipt in receipts],
    )
    return [
        WrittenReceipt(room_nid=row["room_nid"], receipt_type=row["receipt_type"], position=row["position"])
        for row in rows
    ]


def _receipt(row: Row) -> ReceiptRow:
    return ReceiptRow(
        room_nid=row["room_nid"],
        user_id=UserId(row["user_id"]),
        receipt_type=row["receipt_type"],
        thread_id=row["thread_id"] or None,
        event_id=EventId(row["event_id"]),
        event_nid=row["event_nid"],
        topological=row["topological"],
        receipt_ts=row["receipt_ts"],
    )


# Each room has a limit, newest first, which the user's own do not count against.
SELECT_CHANGED_RECEIPTS: Final = """
    SELECT r.room_nid, r.user_id, r.receipt_type, r.thread_id, r.event_id, r.event_nid, r.topological, r.receipt_ts
    FROM unnest($1::integer[]) AS wanted (room_nid)
    CROSS JOIN LATERAL (
        SELECT * FROM receipts
        WHERE receipts.room_nid = wanted.room_nid AND user_id = $4 AND position >= $2 AND position < $3
        UNION ALL
        (SELECT * FROM receipts
        WHERE receipts.room_nid = wanted.room_nid AND user_id <> $4 AND receipt_type = 'm.read'
            AND position >= $2 AND position < $3
        ORDER BY position DESC
        LIMIT $5)
    ) AS r
    ORDER BY r.room_nid, r.position
"""


async def list_changed_receipts(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int, user_id: UserId, limit_per_room: int
) -> list[ReceiptRow]:
    """The receipts in some rooms, as a user may see them, that moved from `since` on and before `upto`.

    Private ones are shown to their user only. Of more of other users than the limit, the newest are given.
    """
    rows = await conn.fetch(SELECT_CHANGED_RECEIPTS, list(room_nids), since, upto, user_id, limit_per_room)
    return [_receipt(row) for row in rows]


SELECT_JOINED_PAIRS: Final = """
    SELECT r.room_id, r.room_nid, m.user_id
    FROM unnest($1::text[], $2::text[]) AS asked (room_id, user_id)
    JOIN rooms r ON r.room_id = asked.room_id
    JOIN memberships m ON m.room_nid = r.room_nid AND m.user_id = asked.user_id AND m.membership = 'join'
"""


async def list_joined_pairs(
    conn: Connection, pairs: Collection[tuple[RoomId, UserId]]
) -> dict[tuple[RoomId, UserId], int]:
    """Those of the pairs of room and user where the user is in the room, each with the `room_nid`."""
    asked = list(pairs)
    rows = await conn.fetch(SELECT_JOINED_PAIRS, [room_id for room_id, _ in asked], [user_id for _, user_id in asked])
    return {(RoomId(row["room_id"]), UserId(row["user_id"])): row["room_nid"] for row in rows}


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_RECEIPT_KEYS: Final = """
    SELECT kind || CASE
        WHEN kind = 'user:' THEN user_id
        ELSE (SELECT r.room_id FROM rooms r WHERE r.room_nid = receipts.room_nid)
    END AS key, max(position) AS position
    FROM receipts
    CROSS JOIN unnest(CASE WHEN receipt_type = 'm.read' THEN ARRAY['room:', 'edu:'] ELSE ARRAY['user:'] END) AS kind
    WHERE position >= $1 AND position < $2 GROUP BY 1 LIMIT $3
"""
