"""Who is typing in which room, by the database's clock.

https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, UserId
from storage.database import Connection

# The row of the room is written only if the list of those who type has changed; so is the position.
UPSERT_TYPING: Final = """
    WITH typed AS (
        INSERT INTO typing (room_nid, user_id, is_typing, expires_at)
        VALUES ($1, $2, true, clock_timestamp() + $3 * interval '1 millisecond')
        ON CONFLICT (room_nid, user_id) DO UPDATE SET is_typing = true, expires_at = excluded.expires_at,
            position = CASE WHEN typing.is_typing THEN typing.position ELSE stream_position() END
        RETURNING position = stream_position() AS has_begun
    )
    INSERT INTO typing_rooms (room_nid) SELECT $1 FROM typed WHERE has_begun
    ON CONFLICT (room_nid) DO UPDATE SET position = stream_position()
    RETURNING position
"""


async def upsert_typing(conn: Connection, *, room_nid: int, user_id: UserId, timeout_ms: int) -> int | None:
    """Notes that a user types, for so long; the position if the user has begun with it, None if it went on."""
    position: int | None = await conn.fetchval(UPSERT_TYPING, room_nid, user_id, timeout_ms)
    return position


STOP_TYPING: Final = """
    WITH stopped AS (
        UPDATE typing SET is_typing = false, expires_at = clock_timestamp(), position = stream_position()
        WHERE room_nid = $1 AND user_id = $2 AND is_typing
        RETURNING room_nid
    )
    INSERT INTO typing_rooms (room_nid) SELECT room_nid FROM stopped
    ON CONFLICT (room_nid) DO UPDATE SET position = stream_position()
    RETURNING position
"""


async def stop_typing(conn: Connection, *, room_nid: int, user_id: UserId) -> int | None:
    """Notes that a user has stopped; the position, or None if the user was not typing."""
    position: int | None = await conn.fetchval(STOP_TYPING, room_nid, user_id)
    return position


@dataclass(frozen=True, slots=True)
class ExpiredTyping:
    """A room in which somebody's time for typing has run out."""

    room_id: RoomId
    position: int


# Processes that do this at once pass over each other's rows; rooms are written in one order.
EXPIRE_TYPING: Final = """
    WITH due AS (
        SELECT room_nid, user_id FROM typing WHERE is_typing AND expires_at <= clock_timestamp()
        LIMIT $1 FOR UPDATE SKIP LOCKED
    ), stopped AS (
        UPDATE typing SET is_typing = false, position = stream_position() FROM due
        WHERE typing.room_nid = due.room_nid AND typing.user_id = due.user_id
        RETURNING typing.room_nid
    ), changed AS (
        INSERT INTO typing_rooms (room_nid) SELECT DISTINCT room_nid FROM stopped ORDER BY room_nid
        ON CONFLICT (room_nid) DO UPDATE SET position = stream_position()
        RETURNING room_nid, position
    )
    SELECT room_id, position FROM changed JOIN rooms USING (room_nid)
"""


async def expire_typing(conn: Connection, *, limit: int) -> list[ExpiredTyping]:
    """Stops those whose time has run out, at most so many; returns the rooms."""
    return [
        ExpiredTyping(room_id=RoomId(row["room_id"]), position=row["position"])
        for row in await conn.fetch(EXPIRE_TYPING, limit)
    ]


DELETE_OLD_TYPING: Final = """
    DELETE FROM typing WHERE NOT is_typing AND expires_at < clock_timestamp() - interval '1 hour'
"""


async def delete_old_typing(conn: Connection) -> None:
    """Forgets who has not been typing for an hour."""
    await conn.execute(DELETE_OLD_TYPING)


SELECT_TYPING_IN: Final = """
    SELECT changed.room_nid,
        ARRAY(SELECT user_id FROM typing WHERE typing.room_nid = changed.room_nid AND is_typing ORDER BY user_id)
            AS user_ids
    FROM typing_rooms changed
    WHERE room_nid = ANY ($1::integer[]) AND position >= $2 AND position < $3
        AND ($2 > 0 OR EXISTS (SELECT FROM typing WHERE typing.room_nid = changed.room_nid))
"""


async def typing_in(
    conn: Connection, room_nids: Collection[int], *, since: int, upto: int
) -> dict[int, tuple[UserId, ...]]:
    """Who types in those rooms where that changed from `since` on and before `upto`.

    A room may have nobody: those who typed have stopped. With `since` 0, rooms where nobody did lately are left out.
    """
    rows = await conn.fetch(SELECT_TYPING_IN, list(room_nids), since, upto)
    return {row["room_nid"]: tuple(map(UserId, row["user_ids"])) for row in rows}


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_TYPING_KEYS: Final = """
    SELECT kind || (SELECT r.room_id FROM rooms r WHERE r.room_nid = t.room_nid) AS key, t.position
    FROM typing_rooms t CROSS JOIN unnest(ARRAY['room:', 'edu:']) AS kind
    WHERE position >= $1 AND position < $2 LIMIT $3
"""
