"""Removing rows of `event_push_exceptions`: what is old, and what belongs to users who are no more.

`add_push_exceptions` in `migrations/0005_push.up.sql` adds them.
"""

from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

# The newest of a member's expired rows in a room stays and carries their totals.
DELETE_EXPIRED_EXCEPTIONS: Final = """
    WITH expired AS (
        SELECT user_id, room_nid, max(event_nid) AS event_nid, count(*) AS row_count
        FROM (
            SELECT user_id, room_nid, event_nid, added_at FROM event_push_exceptions
            WHERE actions IS NOT NULL ORDER BY event_nid LIMIT $2
        ) AS oldest
        WHERE added_at < now() - $1 * interval '1 millisecond'
        GROUP BY user_id, room_nid
    ), kept AS (
        UPDATE event_push_exceptions x SET actions = NULL, notify = false, highlight = false
        FROM expired WHERE (x.user_id, x.room_nid, x.event_nid) = (expired.user_id, expired.room_nid, expired.event_nid)
    ), deleted AS (
        DELETE FROM event_push_exceptions x USING expired
        WHERE x.user_id = expired.user_id AND x.room_nid = expired.room_nid AND x.event_nid < expired.event_nid
    )
    SELECT coalesce(sum(row_count), 0)::integer FROM expired
"""


async def delete_expired_exceptions(conn: Connection, *, age_ms: int, limit: int) -> int:
    """Removes rows of an age, the oldest first; returns how many have been dealt with, at most `limit`."""
    return int(await conn.fetchval(DELETE_EXPIRED_EXCEPTIONS, age_ms, limit))


DELETE_EXCEPTIONS_OF_USER: Final = "DELETE FROM event_push_exceptions WHERE user_id = $1"


async def delete_exceptions_of_user(conn: Connection, user_id: UserId) -> None:
    """Removes all rows of a user."""
    await conn.execute(DELETE_EXCEPTIONS_OF_USER, user_id)
