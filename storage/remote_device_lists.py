"""How the device lists of other servers' users stand: whole or not, and with whom a room is shared.

What stands in the lists is in `remote_devices.py`.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import ServerName, UserId
from storage.database import Connection

SHARING_FOLLOWER: Final = "remote_device_lists"
"""The follower that removes lists when no room is shared any more; up to its position that has been done."""

# A list is kept up to date only while a room is shared. Whether one was shared all the time is known up to where the
# follower has come; rooms that were shared before the list was fetched are as good.
SELECT_COMPANIONS: Final = """
    WITH mine AS MATERIALIZED (
        SELECT m.room_nid, coalesce(e.position, 0) AS since
        FROM memberships m LEFT JOIN events e ON e.event_nid = m.joined_nid
        WHERE m.user_id = $1 AND m.membership = 'join'
    ), shared AS (
        SELECT theirs.user_id, min(greatest(mine.since, coalesce(e.position, 0))) AS since
        FROM memberships theirs JOIN mine USING (room_nid) LEFT JOIN events e ON e.event_nid = theirs.joined_nid
        WHERE theirs.user_id = ANY ($2::text[]) AND theirs.membership = 'join'
        GROUP BY theirs.user_id
    )
    SELECT s.user_id,
        coalesce(l.is_whole AND s.since < greatest(l.fetched_position, f.position), false) AS has_list
    FROM shared s
    LEFT JOIN remote_device_lists l USING (user_id)
    LEFT JOIN follower_positions f ON f.name = $3
"""


async def list_companions(conn: Connection, user_id: UserId, among: Collection[UserId]) -> dict[UserId, bool]:
    """Those of some users of other servers with whom a local user shares a room; whether their lists are good."""
    rows = await conn.fetch(SELECT_COMPANIONS, user_id, list(among), SHARING_FOLLOWER)
    return {UserId(row["user_id"]): row["has_list"] for row in rows}


SELECT_IS_COMPANION: Final = """
    SELECT EXISTS (
        SELECT FROM memberships m JOIN room_summaries s USING (room_nid)
        WHERE m.user_id = $1 AND m.membership = 'join' AND s.local_joined_members > 0
    )
"""


async def shares_any_room(conn: Connection, user_id: UserId) -> bool:
    """Whether a user of another server is joined to a room that this server is in."""
    return bool(await conn.fetchval(SELECT_IS_COMPANION, user_id))


INSERT_LISTS: Final = """
    INSERT INTO remote_device_lists (user_id, server_name, retry_at_ts)
    SELECT given.user_id, given.server_name, $3 FROM unnest($1::text[], $2::text[]) AS given (user_id, server_name)
    WHERE EXISTS (
        SELECT FROM memberships m JOIN room_summaries s USING (room_nid)
        WHERE m.user_id = given.user_id AND m.membership = 'join' AND s.local_joined_members > 0
    )
    ORDER BY given.user_id
    ON CONFLICT (user_id) DO NOTHING
"""


async def insert_lists(conn: Connection, user_ids: Collection[UserId], *, retry_at_ts: int) -> None:
    """Begins lists, if there are none yet, of those users with whom a room is shared; they are to be fetched then."""
    await conn.execute(INSERT_LISTS, list(user_ids), [user_id.server_name for user_id in user_ids], retry_at_ts)


SELECT_GENERATION: Final = "SELECT generation FROM remote_device_lists WHERE user_id = $1"


async def find_generation(conn: Connection, user_id: UserId) -> int | None:
    """What a fetch of a list must know before it begins; None if there is no such list."""
    generation: int | None = await conn.fetchval(SELECT_GENERATION, user_id)
    return generation


@dataclass(frozen=True, slots=True)
class ListStanding:
    """How a list stands.

    Attributes:
        stream_id: the update that it agrees with; None if it was never fetched.
        is_whole: whether no update is known to be missing.
        generation: changes with everything that a fetch which has begun before may not know of; 0 for a new list.
        failures: how often fetching it has failed since it was whole.
    """

    stream_id: int | None
    is_whole: bool
    generation: int
    failures: int


LOCK_LIST: Final = """
    SELECT stream_id, is_whole, generation, failures FROM remote_device_lists WHERE user_id = $1 FOR NO KEY UPDATE
"""


async def lock_list(conn: Connection, user_id: UserId) -> ListStanding | None:
    """How a list stands, which nobody else changes before the transaction ends; None if there is no such list."""
    row = await conn.fetchrow(LOCK_LIST, user_id)
    return None if row is None else ListStanding(*row)


UPDATE_STREAM_ID: Final = """
    UPDATE remote_device_lists SET stream_id = $2, generation = generation + 1 WHERE user_id = $1
"""


async def advance_list(conn: Connection, user_id: UserId, *, stream_id: int) -> None:
    """Says that a list agrees with an update now."""
    await conn.execute(UPDATE_STREAM_ID, user_id, stream_id)


# One that has failed before waits its time: its server is not asked anew for each update.
UPDATE_STALE: Final = """
    UPDATE remote_device_lists SET
        is_whole = false,
        generation = generation + 1,
        retry_at_ts = CASE WHEN failures = 0 THEN 0 ELSE retry_at_ts END
    WHERE user_id = $1
"""


async def mark_stale(conn: Connection, user_id: UserId) -> None:
    """Says that something is missing in a list, or may be; a fetch that is under way may not bring it."""
    await conn.execute(UPDATE_STALE, user_id)


UPDATE_FETCHED: Final = """
    UPDATE remote_device_lists SET
        is_whole = true, stream_id = $2, fetched_position = $3,
        generation = generation + 1, failures = 0, retry_at_ts = 0
    WHERE user_id = $1
"""


async def mark_whole(conn: Connection, user_id: UserId, *, stream_id: int, fetched_position: int) -> None:
    """Says that a list has been fetched, and at which bound of the streams that began."""
    await conn.execute(UPDATE_FETCHED, user_id, stream_id, fetched_position)


@dataclass(frozen=True, slots=True)
class DueList:
    """A list that is to be fetched; `failures` says how often that has failed."""

    user_id: UserId
    failures: int


# The ones that are picked are left alone until $2; should this process end, they are picked again then.
CLAIM_DUE_LISTS: Final = """
    WITH due AS (
        SELECT user_id FROM (
            SELECT user_id, failures, retry_at_ts,
                row_number() OVER (PARTITION BY server_name ORDER BY failures, retry_at_ts, user_id) AS number
            FROM remote_device_lists
            WHERE NOT is_whole AND retry_at_ts <= $1 AND server_name <> ALL ($5::text[])
        ) AS of_server
        WHERE number <= $4
        ORDER BY failures, retry_at_ts
        LIMIT $3
    ), picked AS (
        SELECT l.user_id FROM remote_device_lists l JOIN due USING (user_id)
        WHERE NOT l.is_whole AND l.retry_at_ts <= $1
        FOR NO KEY UPDATE OF l SKIP LOCKED
    )
    UPDATE remote_device_lists l SET retry_at_ts = $2 FROM picked WHERE l.user_id = picked.user_id
    RETURNING l.user_id, l.failures
"""


async def claim_due_lists(
    conn: Connection, *, now_ms: int, leased_until_ts: int, limit: int, per_server: int, busy: Collection[ServerName]
) -> list[DueList]:
    """Some lists that are to be fetched now, a few of each server; no others pick them before a time.

    Args:
        busy: servers that are to be left alone.
    """
    rows = await conn.fetch(CLAIM_DUE_LISTS, now_ms, leased_until_ts, limit, per_server, list(busy))
    return [DueList(UserId(row["user_id"]), row["failures"]) for row in rows]


# A list that has changed meanwhile is due at once, and stays so.
EXTEND_CLAIMS: Final = """
    UPDATE remote_device_lists SET retry_at_ts = $3
    WHERE user_id = ANY ($1::text[]) AND NOT is_whole AND retry_at_ts > $2
"""


async def extend_claims(conn: Connection, user_ids: Collection[UserId], *, now_ms: int, leased_until_ts: int) -> None:
    """Says that lists are still being fetched."""
    await conn.execute(EXTEND_CLAIMS, list(user_ids), now_ms, leased_until_ts)


UPDATE_FAILED_LIST: Final = """
    UPDATE remote_device_lists SET failures = failures + 1, retry_at_ts = $2 WHERE user_id = $1 AND NOT is_whole
    RETURNING failures = 1 AND generation > 0 AS is_news
"""


async def postpone_list(conn: Connection, user_id: UserId, *, retry_at_ts: int) -> bool:
    """Notes that a list could not be fetched, and when (milliseconds) it is tried again.

    Returns:
        Whether it is the first time since an update has told that something is missing.
    """
    return bool(await conn.fetchval(UPDATE_FAILED_LIST, user_id, retry_at_ts))


UPDATE_LISTS_OF_SERVERS: Final = """
    UPDATE remote_device_lists SET retry_at_ts = 0
    WHERE server_name = ANY ($1::text[]) AND NOT is_whole AND failures > 0
"""


async def hasten_lists(conn: Connection, server_names: Collection[ServerName]) -> None:
    """Has all lists of some servers tried again at once: the servers answer again."""
    await conn.execute(UPDATE_LISTS_OF_SERVERS, list(server_names))


# `moved`: whose memberships have changed. `begun`: since when this server has been in the rooms where its own users'
# memberships have; NULL if it is not any more. All who are in a room that it was not in all the time are looked at.
# A list stays if one room has been shared since before the window, or since before the list was fetched.
DELETE_UNSHARED: Final = """
    WITH moved AS MATERIALIZED (
        SELECT m.room_nid, m.user_id, substr(m.user_id, strpos(m.user_id, ':') + 1) = $3 AS is_local
        FROM (SELECT DISTINCT room_nid FROM state_history WHERE position >= $1 AND position < $2) AS changed
        JOIN memberships m USING (room_nid)
        WHERE m.position >= $1
    ), begun AS MATERIALIZED (
        SELECT r.room_nid, (
            SELECT min(coalesce(e.position, 0))
            FROM memberships m LEFT JOIN events e ON e.event_nid = m.joined_nid
            WHERE m.room_nid = r.room_nid AND m.membership = 'join'
                AND substr(m.user_id, strpos(m.user_id, ':') + 1) = $3
        ) AS position
        FROM (SELECT DISTINCT room_nid FROM moved WHERE is_local) AS r
    ), touched AS (
        SELECT user_id FROM moved WHERE NOT is_local
        UNION
        SELECT m.user_id FROM begun b JOIN memberships m USING (room_nid)
        WHERE coalesce(b.position >= $1, true)
    )
    DELETE FROM remote_device_lists l USING touched t
    WHERE l.user_id = t.user_id AND NOT EXISTS (
        SELECT FROM memberships m
        JOIN room_summaries s USING (room_nid)
        LEFT JOIN begun b USING (room_nid)
        LEFT JOIN events e ON e.event_nid = m.joined_nid
        WHERE m.user_id = l.user_id AND m.membership = 'join' AND s.local_joined_members > 0
            AND (l.fetched_position IS NULL OR
                greatest(coalesce(e.position, 0), coalesce(b.position, 0)) < greatest(l.fetched_position, $1))
    )
"""


async def delete_unshared_lists(conn: Connection, *, since: int, upto: int, server_name: ServerName) -> None:
    """Removes the lists of users with whom this server has shared no room for a moment, from `since` on."""
    await conn.execute(DELETE_UNSHARED, since, upto, server_name)


DELETE_LEFT_LISTS: Final = """
    DELETE FROM remote_device_lists WHERE user_id IN (
        SELECT l.user_id FROM remote_device_lists l
        WHERE NOT EXISTS (
            SELECT FROM memberships m JOIN room_summaries s USING (room_nid)
            WHERE m.user_id = l.user_id AND m.membership = 'join' AND s.local_joined_members > 0
        )
        LIMIT $1
    )
"""


async def delete_left_lists(conn: Connection, *, limit: int) -> int:
    """Removes lists of users with whom no room is shared; how many. There are few: such as were begun too late."""
    status = await conn.execute(DELETE_LEFT_LISTS, limit)
    return int(status.rpartition(" ")[2])
