"""What the rows between two positions are about, whatever they say: which rooms, and which users.

So whoever reads the streams for a user can pass over all that does not concern that user. Each stream that a sync tells
of must stand here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection


class ChangeKind(StrEnum):
    """What has changed: of a room, of a user, or of anybody."""

    EVENTS = "events"
    STATE = "state"
    RECEIPTS = "receipts"
    TYPING = "typing"
    USER = "user"
    """Account data, push rules, memberships, messages to devices, how many keys these have, whom the user verified."""
    PRESENCE = "presence"
    DEVICE_LISTS = "device_lists"
    READ = "read"
    """How far the user has read in any room."""


@dataclass(frozen=True, slots=True)
class Change:
    """A kind, whose it is (a `room_nid`, a user, or None for anybody's), and the last position at which it changed."""

    kind: ChangeKind
    key: int | UserId | None
    position: int


SELECT_CHANGES: Final = """
    SELECT kind, room_nid, user_id, max(position) AS position
    FROM (
        SELECT 'events' AS kind, room_nid, NULL AS user_id, position FROM events
        WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'state', room_nid, NULL, position FROM state_history WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'receipts', room_nid, NULL, position FROM receipts WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'read', NULL, user_id, position FROM receipts WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'typing', room_nid, NULL, position FROM typing_rooms WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, user_id, position FROM account_data WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, user_id, position FROM push_rules WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, user_id, position FROM membership_changes WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, user_id, position FROM to_device_messages WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, user_id, position FROM key_count_changes WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'user', NULL, signer_id, position FROM signed_users WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'presence', NULL, NULL, position FROM presence WHERE position >= $1 AND position < $2
        UNION ALL
        SELECT 'device_lists', NULL, NULL, position FROM device_list_changes WHERE position >= $1 AND position < $2
    ) AS changed
    GROUP BY kind, room_nid, user_id
    ORDER BY position
    LIMIT $3
"""


async def list_changes(conn: Connection, *, since: int, upto: int, limit: int) -> list[Change]:
    """What changed from `since` on and before `upto`, in the order of the last positions."""
    rows = await conn.fetch(SELECT_CHANGES, since, upto, limit)
    return [
        Change(
            kind=ChangeKind(row["kind"]),
            key=row["room_nid"] if row["user_id"] is None else UserId(row["user_id"]),
            position=row["position"],
        )
        for row in rows
    ]


SELECT_CHANGED_ROOMS: Final = """
    SELECT changed.kind, wanted.room_nid
    FROM unnest($1::integer[]) AS wanted (room_nid)
    CROSS JOIN LATERAL (
        SELECT 'events' AS kind WHERE EXISTS (
            SELECT FROM events e WHERE e.room_nid = wanted.room_nid AND e.position >= $2 AND e.position < $3)
        UNION ALL
        SELECT 'state' WHERE EXISTS (
            SELECT FROM state_history h WHERE h.room_nid = wanted.room_nid AND h.position >= $2 AND h.position < $3)
        UNION ALL
        SELECT 'receipts' WHERE EXISTS (
            SELECT FROM receipts r WHERE r.room_nid = wanted.room_nid AND r.position >= $2 AND r.position < $3)
        UNION ALL
        SELECT 'typing' WHERE EXISTS (
            SELECT FROM typing_rooms t WHERE t.room_nid = wanted.room_nid AND t.position >= $2 AND t.position < $3)
    ) AS changed
"""


async def list_changed_rooms(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int
) -> list[tuple[ChangeKind, int]]:
    """What changed in some rooms from `since` on and before `upto`, as kind and `room_nid`."""
    if not room_nids:
        return []
    rows = await conn.fetch(SELECT_CHANGED_ROOMS, list(room_nids), since, upto)
    return [(ChangeKind(row["kind"]), row["room_nid"]) for row in rows]
