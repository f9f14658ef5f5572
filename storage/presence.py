"""Who is online: for each user one row, computed from what its devices, or its own server, say.

https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """A user's presence.

    Attributes:
        presence: online, unavailable or offline.
        last_active_ts: when the user last did something, in milliseconds, as of a minute ago or later; None if never.
    """

    user_id: UserId
    presence: str
    status_msg: str | None
    last_active_ts: int | None
    currently_active: bool


@dataclass(frozen=True, slots=True)
class PresenceSource:
    """What presence is computed from.

    Attributes:
        device_id: empty for what another server tells of its user.
        presence: what the device asks for; offline removes the source.
        currently_active: what another server tells; None for devices of this one.
    """

    user_id: UserId
    device_id: str
    presence: str
    currently_active: bool | None = None


# That somebody who was never seen is offline is no news, so the row begins before all positions.
INSERT_ABSENT_PRESENCE: Final = """
    INSERT INTO presence (user_id, position) SELECT user_id, 0 FROM unnest($1::text[]) AS user_id ORDER BY user_id
    ON CONFLICT (user_id) DO NOTHING
"""
LOCK_PRESENCE: Final = """
    SELECT FROM presence WHERE user_id = ANY ($1::text[]) ORDER BY user_id FOR NO KEY UPDATE
"""


async def lock_presence(conn: Connection, user_ids: Collection[UserId]) -> None:
    """Lets nobody else compute the presence of these users before this transaction ends."""
    users = list(user_ids)
    await conn.execute(INSERT_ABSENT_PRESENCE, users)
    await conn.execute(LOCK_PRESENCE, users)


UPSERT_SOURCES: Final = """
    INSERT INTO presence_sources (user_id, device_id, process, presence, currently_active, expires_at)
    SELECT user_id, device_id, $5, presence, currently_active, clock_timestamp() + $6 * interval '1 millisecond'
    FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[])
        AS s (user_id, device_id, presence, currently_active)
    WHERE presence <> 'offline'
    ON CONFLICT (user_id, device_id, process) DO UPDATE SET
        presence = excluded.presence, currently_active = excluded.currently_active, expires_at = excluded.expires_at
"""
DELETE_OFFLINE_SOURCES: Final = """
    DELETE FROM presence_sources s USING unnest($1::text[], $2::text[], $3::text[]) AS o (user_id, device_id, presence)
    WHERE s.user_id = o.user_id AND s.device_id = o.device_id AND s.process = $4 AND o.presence = 'offline'
"""


async def upsert_sources(
    conn: Connection, sources: Sequence[PresenceSource], *, process: str, duration_ms: int
) -> None:
    """Writes what a process knows, each device once; it holds for so long. The users must be locked."""
    users = [source.user_id for source in sources]
    devices = [source.device_id for source in sources]
    presences = [source.presence for source in sources]
    told = [source.currently_active for source in sources]
    await conn.execute(UPSERT_SOURCES, users, devices, presences, told, process, duration_ms)
    await conn.execute(DELETE_OFFLINE_SOURCES, users, devices, presences, process)


DELETE_EXPIRED_SOURCES: Final = """
    DELETE FROM presence_sources WHERE user_id = ANY ($1::text[]) AND expires_at <= clock_timestamp()
"""

# The source that is most present decides. Without activity, a device that asks for online is unavailable.
UPDATE_PRESENCE: Final = """
    WITH sources AS (
        SELECT u.user_id, u.active_ts,
            coalesce(bool_or(s.presence = 'online'), false) AS is_online,
            count(s.presence) > 0 AS is_there,
            bool_or(s.currently_active) AS told_active
        FROM unnest($1::text[], $2::bigint[]) AS u (user_id, active_ts)
        LEFT JOIN presence_sources s ON s.user_id = u.user_id AND s.expires_at > clock_timestamp()
        GROUP BY u.user_id, u.active_ts
    ), computed AS (
        SELECT p.user_id, GREATEST(p.last_active_ts, active_ts) AS last_active_ts,
            CASE WHEN NOT is_there THEN 'offline'
                WHEN is_online AND (told_active IS NOT NULL OR GREATEST(p.last_active_ts, active_ts) > $3) THEN 'online'
                ELSE 'unavailable' END AS presence,
            is_online AND coalesce(told_active, GREATEST(p.last_active_ts, active_ts) > $4, false) AS currently_active
        FROM sources JOIN presence p USING (user_id)
    )
    UPDATE presence p SET presence = c.presence, currently_active = c.currently_active,
        last_active_ts = c.last_active_ts,
        position = CASE WHEN (p.presence, p.currently_active) <> (c.presence, c.currently_active)
            THEN stream_position() ELSE p.position END
    FROM computed c
    WHERE p.user_id = c.user_id AND (p.presence, p.currently_active, p.last_active_ts)
        IS DISTINCT FROM (c.presence, c.currently_active, c.last_active_ts)
"""


async def compute_presence(
    conn: Connection, active_ts: Mapping[UserId, int | None], *, idle_since_ts: int, inactive_since_ts: int
) -> None:
    """Computes the presence of locked users from their sources.

    Args:
        active_ts: the users, with when each was active, if that is news.
        idle_since_ts: who has not been active since then is not online.
        inactive_since_ts: who has not been active since then is not currently active.
    """
    users = list(active_ts)
    await conn.execute(DELETE_EXPIRED_SOURCES, users)
    await conn.execute(UPDATE_PRESENCE, users, list(active_ts.values()), idle_since_ts, inactive_since_ts)


UPDATE_STATUS_MSG: Final = """
    UPDATE presence SET status_msg = s.status_msg, position = stream_position()
    FROM unnest($1::text[], $2::text[]) AS s (user_id, status_msg)
    WHERE presence.user_id = s.user_id AND presence.status_msg IS DISTINCT FROM s.status_msg
"""


async def update_status_msg(conn: Connection, status_msgs: Mapping[UserId, str | None]) -> None:
    """Sets the status messages of locked users."""
    await conn.execute(UPDATE_STATUS_MSG, list(status_msgs), list(status_msgs.values()))


SELECT_OVERDUE: Final = """
    SELECT user_id FROM presence_sources WHERE expires_at <= clock_timestamp()
    UNION
    SELECT user_id FROM presence
    WHERE presence = 'online' AND last_active_ts <= $2 AND (currently_active OR last_active_ts <= $1)
        AND EXISTS (SELECT FROM presence_sources s WHERE s.user_id = presence.user_id AND s.currently_active IS NULL)
    LIMIT $3
"""


async def list_overdue(conn: Connection, *, idle_since_ts: int, inactive_since_ts: int, limit: int) -> list[UserId]:
    """Users whose presence is no longer what it says, because time has passed."""
    rows = await conn.fetch(SELECT_OVERDUE, idle_since_ts, inactive_since_ts, limit)
    return [UserId(row["user_id"]) for row in rows]


def _presence(row: Row) -> PresenceRow:
    return PresenceRow(
        user_id=UserId(row["user_id"]),
        presence=row["presence"],
        status_msg=row["status_msg"],
        last_active_ts=row["last_active_ts"],
        currently_active=row["currently_active"],
    )


SELECT_PRESENCE: Final = """
    SELECT user_id, presence, status_msg, last_active_ts, currently_active FROM presence WHERE user_id = $1
"""


async def find_presence(conn: Connection, user_id: UserId) -> PresenceRow | None:
    """A user's presence; None for one who has not been seen."""
    row = await conn.fetchrow(SELECT_PRESENCE, user_id)
    return None if row is None else _presence(row)


SELECT_CHANGED_PRESENCE: Final = """
    SELECT user_id, presence, status_msg, last_active_ts, currently_active FROM presence p
    WHERE position >= $2 AND position < $3 AND ($2 > 0 OR presence <> 'offline')
        AND (user_id = $1 OR EXISTS (
            SELECT FROM memberships theirs JOIN memberships mine USING (room_nid)
            WHERE theirs.user_id = p.user_id AND theirs.membership = 'join'
                AND mine.user_id = $1 AND mine.membership = 'join'))
    UNION
    SELECT user_id, presence, status_msg, last_active_ts, currently_active FROM presence
    WHERE user_id = ANY ($4::text[]) AND presence <> 'offline'
    ORDER BY user_id
"""


async def changed_presence(
    conn: Connection, user_id: UserId, *, since: int, upto: int, newcomers: Collection[UserId] = ()
) -> list[PresenceRow]:
    """The presence of those who share a room with a user (and its own) that changed from `since` on and before `upto`.

    Who is offline is not told if `since` is 0. Of `newcomers`, all who are not offline are told.
    """
    rows = await conn.fetch(SELECT_CHANGED_PRESENCE, user_id, since, upto, list(newcomers))
    return [_presence(row) for row in rows]


SELECT_PRESENCE_IN_ROOM: Final = """
    SELECT m.user_id, coalesce(p.presence, 'offline') AS presence, p.status_msg, p.last_active_ts,
        coalesce(p.currently_active, false) AS currently_active
    FROM memberships m LEFT JOIN presence p USING (user_id)
    WHERE m.room_nid = $1 AND m.membership = 'join' AND ($2 = 0 OR p.position >= $2 AND p.position < $3)
    ORDER BY m.user_id
"""


async def presence_in_room(conn: Connection, room_nid: int, *, since: int, upto: int) -> list[PresenceRow]:
    """The presence of the members of a room that changed from `since` on and before `upto`; with `since` 0 of all."""
    return [_presence(row) for row in await conn.fetch(SELECT_PRESENCE_IN_ROOM, room_nid, since, upto)]


SELECT_USERS_IN_ROOMS: Final = """
    SELECT DISTINCT user_id FROM memberships WHERE user_id = ANY ($1::text[]) AND membership = 'join'
"""


async def list_users_in_rooms(conn: Connection, user_ids: Collection[UserId]) -> set[UserId]:
    """Those of the users who are joined to any room that this server knows."""
    return {UserId(row["user_id"]) for row in await conn.fetch(SELECT_USERS_IN_ROOMS, list(user_ids))}


# For the hub's tick: whom to wake for the rows between two positions. Rooms stand for the users who share them.
SELECT_PRESENCE_KEYS: Final = """
    SELECT 'presence:' || (SELECT r.room_id FROM rooms r WHERE r.room_nid = m.room_nid) AS key,
        max(p.position) AS position
    FROM presence p JOIN memberships m ON m.user_id = p.user_id AND m.membership = 'join'
    WHERE p.position >= $1 AND p.position < $2 GROUP BY m.room_nid
    UNION ALL
    SELECT 'user:' || user_id, position FROM presence WHERE position >= $1 AND position < $2
    LIMIT $3
"""
