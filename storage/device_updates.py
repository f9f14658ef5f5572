"""What other servers have still to be told of the devices of this server's users, and what they were told last.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, ServerName, UserId
from storage.database import Connection, Row

CROSS_SIGNING_KEYS: Final = ""
"""Stands for the user's cross-signing keys in the place of a device id."""

UPSERT_DEVICE_CHANGES: Final = """
    INSERT INTO device_changes (user_id, device_id)
    SELECT DISTINCT $1, given.device_id FROM unnest($2::text[]) AS given (device_id) ORDER BY given.device_id
    ON CONFLICT (user_id, device_id) DO UPDATE SET position = stream_position()
"""


async def upsert_device_changes(conn: Connection, user_id: UserId, device_ids: Collection[str]) -> None:
    """Notes devices that came, changed or went, or `CROSS_SIGNING_KEYS`."""
    await conn.execute(UPSERT_DEVICE_CHANGES, user_id, list(device_ids))


@dataclass(frozen=True, slots=True)
class ChangedDevice:
    """A device that has changed (or `CROSS_SIGNING_KEYS`), and the position at which it last did."""

    user_id: UserId
    device_id: str
    position: int


SELECT_DEVICE_CHANGES: Final = """
    SELECT c.user_id, c.device_id, c.position
    FROM (
        SELECT user_id, min(position) AS first FROM device_changes WHERE position < $1
        GROUP BY user_id ORDER BY 2, 1 LIMIT $2
    ) AS users
    JOIN device_changes c USING (user_id)
    WHERE c.position < $1
    ORDER BY users.first, c.user_id, c.position, c.device_id
"""


async def list_device_changes(conn: Connection, *, upto: int, users_max: int) -> dict[UserId, list[ChangedDevice]]:
    """What has changed before a position: all of a user, of so many users, those who have waited longest first."""
    found: dict[UserId, list[ChangedDevice]] = {}
    for row in await conn.fetch(SELECT_DEVICE_CHANGES, upto, users_max):
        change = ChangedDevice(UserId(row["user_id"]), row["device_id"], row["position"])
        found.setdefault(change.user_id, []).append(change)
    return found


DELETE_DEVICE_CHANGES: Final = """
    DELETE FROM device_changes c
    USING unnest($1::text[], $2::text[], $3::bigint[]) AS told (user_id, device_id, position)
    WHERE c.user_id = told.user_id AND c.device_id = told.device_id AND c.position = told.position
    RETURNING c.user_id, c.device_id, c.position
"""


async def delete_device_changes(conn: Connection, changes: Sequence[ChangedDevice]) -> set[ChangedDevice]:
    """Says that changes are being told; returns those that nobody else has told, and that did not change again."""
    rows = await conn.fetch(
        DELETE_DEVICE_CHANGES,
        [change.user_id for change in changes],
        [change.device_id for change in changes],
        [change.position for change in changes],
    )
    return {ChangedDevice(UserId(row["user_id"]), row["device_id"], row["position"]) for row in rows}


@dataclass(frozen=True, slots=True)
class ToldUpdate:
    """The update of a user's device list that was told last.

    Attributes:
        stream_id: its number; 0 if there was none yet.
        prev_id: the number of the one before it; None if it is the first.
        device_id: the device that it is about; None if there was none yet.
    """

    stream_id: int = 0
    prev_id: int | None = None
    device_id: DeviceId | None = None


LOCK_TOLD_UPDATES: Final = """
    SELECT user_id, stream_id, prev_id, device_id FROM device_list_streams
    WHERE user_id = ANY ($1::text[]) ORDER BY user_id FOR NO KEY UPDATE
"""


async def lock_told_updates(conn: Connection, user_ids: Collection[UserId]) -> dict[UserId, ToldUpdate]:
    """What was told last of users, which nobody else changes before the transaction ends; absent if nothing was."""
    return {UserId(row["user_id"]): _told(row) for row in await conn.fetch(LOCK_TOLD_UPDATES, list(user_ids))}


SELECT_TOLD_UPDATES: Final = """
    SELECT user_id, stream_id, prev_id, device_id FROM device_list_streams WHERE user_id = ANY ($1::text[])
"""


async def list_told_updates(conn: Connection, user_ids: Collection[UserId]) -> dict[UserId, ToldUpdate]:
    """What was told last of users; those of whom nothing was are absent."""
    return {UserId(row["user_id"]): _told(row) for row in await conn.fetch(SELECT_TOLD_UPDATES, list(user_ids))}


def _told(row: Row) -> ToldUpdate:
    device_id = row["device_id"]
    return ToldUpdate(row["stream_id"], row["prev_id"], None if device_id is None else DeviceId(device_id))


UPSERT_TOLD_UPDATES: Final = """
    INSERT INTO device_list_streams (user_id, stream_id, prev_id, device_id)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[])
        AS told (user_id, stream_id, prev_id, device_id)
    ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET
        stream_id = excluded.stream_id, prev_id = excluded.prev_id, device_id = excluded.device_id,
        position = stream_position()
"""


async def put_told_updates(conn: Connection, told: Mapping[UserId, ToldUpdate]) -> None:
    """Says what was told last of users; for one whose cross-signing keys alone were told that is what it was."""
    await conn.execute(
        UPSERT_TOLD_UPDATES,
        list(told),
        [update.stream_id for update in told.values()],
        [update.prev_id for update in told.values()],
        [update.device_id for update in told.values()],
    )


SELECT_TOLD_SINCE: Final = """
    SELECT user_id, position FROM device_list_streams WHERE position >= $1 ORDER BY position, user_id LIMIT $2
"""


async def list_told_since(conn: Connection, position: int, *, limit: int) -> list[tuple[UserId, int]]:
    """The users of whom something was told from a position on, each with the position at which it last was."""
    rows = await conn.fetch(SELECT_TOLD_SINCE, position, limit)
    return [(UserId(row["user_id"]), row["position"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A local user who has begun to be joined to a room, and of whose devices something has been told before."""

    position: int
    user_id: UserId
    room_nid: int


# One by one: never by a plan that goes through all memberships, as it would be made while there are few.
SELECT_ARRIVALS: Final = """
    SELECT e.position, m.user_id, m.room_nid
    FROM events e
    CROSS JOIN LATERAL (
        SELECT m.room_nid, m.user_id FROM memberships m JOIN device_list_streams s USING (user_id)
        WHERE m.user_id = e.state_key AND m.room_nid = e.room_nid AND m.joined_nid = e.event_nid
            AND m.membership = 'join'
        OFFSET 0
    ) AS m
    WHERE e.position >= $1 AND e.position < $2 AND e.type = 'm.room.member'
    ORDER BY e.position LIMIT $3
"""


async def list_arrivals(conn: Connection, *, since: int, upto: int, limit: int) -> list[Arrival]:
    """The first of those who came into rooms from `since` on and before `upto`."""
    rows = await conn.fetch(SELECT_ARRIVALS, since, upto, limit)
    return [Arrival(row["position"], UserId(row["user_id"]), row["room_nid"]) for row in rows]


# Those that do not answer, that lag behind already, or for which very much waits.
SELECT_LAGGING_AMONG: Final = """
    SELECT given.destination FROM unnest($1::text[]) AS given (destination)
    WHERE EXISTS (
        SELECT FROM destinations d WHERE d.destination = given.destination AND d.failing_since_ts IS NOT NULL
    ) OR EXISTS (
        SELECT FROM device_list_lags l WHERE l.destination = given.destination
    ) OR EXISTS (
        SELECT FROM destination_edus e WHERE e.destination = given.destination OFFSET $2 - 1
    )
"""


async def list_lagging_among(
    conn: Connection, destinations: Collection[ServerName], *, edus_max: int
) -> set[ServerName]:
    """Those of some servers for which nothing more is to be queued, among them those with so many waiting EDUs."""
    rows = await conn.fetch(SELECT_LAGGING_AMONG, list(destinations), edus_max)
    return {ServerName(row["destination"]) for row in rows}


UPSERT_LAGS: Final = """
    INSERT INTO device_list_lags (destination)
    SELECT DISTINCT given.destination FROM unnest($1::text[]) AS given (destination) ORDER BY given.destination
    ON CONFLICT (destination) DO UPDATE SET version = device_list_lags.version + 1
"""


async def note_lags(conn: Connection, destinations: Collection[ServerName]) -> None:
    """Says that servers are not told what this transaction tells others."""
    await conn.execute(UPSERT_LAGS, list(destinations))


@dataclass(frozen=True, slots=True)
class Lag:
    """A server that has not been told everything from a position on; `version` changes with what it was not told."""

    destination: ServerName
    version: int
    position: int


# For a server that does not answer, one EDU is enough to have it tried again.
SELECT_DUE_LAGS: Final = """
    SELECT l.destination, l.version, l.position
    FROM device_list_lags l LEFT JOIN destinations d USING (destination)
    WHERE coalesce(d.retry_at_ts, 0) <= $1 AND NOT EXISTS (
        SELECT FROM destination_edus e WHERE e.destination = l.destination
        OFFSET CASE WHEN d.failing_since_ts IS NULL THEN $2 - 1 ELSE 0 END
    )
    ORDER BY l.position
    LIMIT $3
"""


async def list_due_lags(conn: Connection, *, now_ms: int, edus_max: int, limit: int) -> list[Lag]:
    """Servers that may be told now what they have missed; those for which so many EDUs wait are not among them."""
    rows = await conn.fetch(SELECT_DUE_LAGS, now_ms, edus_max, limit)
    return [Lag(ServerName(row["destination"]), row["version"], row["position"]) for row in rows]


DELETE_LAG: Final = "DELETE FROM device_list_lags WHERE destination = $1 AND version = $2"
UPDATE_LAG: Final = """
    UPDATE device_list_lags SET position = $3, version = version + 1 WHERE destination = $1 AND version = $2
"""


async def end_lag(conn: Connection, lag: Lag, *, reached: int | None) -> bool:
    """Says that a server is being told what it has missed: everything, or what is before a position.

    Returns:
        Whether it has not missed anything more meanwhile, and nobody else is telling it.
    """
    if reached is None:
        return bool(await conn.execute(DELETE_LAG, lag.destination, lag.version) == "DELETE 1")
    return bool(await conn.execute(UPDATE_LAG, lag.destination, lag.version, reached) == "UPDATE 1")
