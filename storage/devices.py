"""Devices of local users: their names and where they were last seen.

https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device; times are milliseconds since the epoch."""

    user_id: UserId
    device_id: DeviceId
    display_name: str | None
    created_ts: int
    last_seen_ts: int | None
    last_seen_ip: str | None
    last_seen_user_agent: str | None
    position: int


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """Where and when a device made a request."""

    user_id: UserId
    device_id: DeviceId
    ts: int
    ip: str
    user_agent: str


def _device(row: Row) -> DeviceRow:
    return DeviceRow(
        user_id=UserId(row["user_id"]),
        device_id=DeviceId(row["device_id"]),
        display_name=row["display_name"],
        created_ts=row["created_ts"],
        last_seen_ts=row["last_seen_ts"],
        last_seen_ip=row["last_seen_ip"],
        last_seen_user_agent=row["last_seen_user_agent"],
        position=row["position"],
    )


UPSERT_DEVICE: Final = """
    INSERT INTO devices (user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_user_agent)
    VALUES ($1, $2, $3, $4, $4, $5, $6)
    ON CONFLICT (user_id, device_id) DO UPDATE
        SET last_seen_ts = $4, last_seen_ip = $5, last_seen_user_agent = $6
    RETURNING position, position = stream_position() AS made
"""


@dataclass(frozen=True, slots=True)
class DeviceUpsert:
    """Where a device stands in the stream, and whether it has just been made."""

    position: int
    made: bool


async def upsert_device(conn: Connection, seen: DeviceSeen, *, display_name: str | None) -> DeviceUpsert:
    """Makes a device; one that is known already keeps its name."""
    row = await conn.fetchrow(
        UPSERT_DEVICE, seen.user_id, seen.device_id, display_name, seen.ts, seen.ip, seen.user_agent
    )
    assert row is not None, "an upsert returns its row"
    return DeviceUpsert(position=row["position"], made=row["made"])


SELECT_DEVICE: Final = """
    SELECT user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_user_agent, position
    FROM devices WHERE user_id = $1 AND device_id = $2
"""


async def find_device(conn: Connection, *, user_id: UserId, device_id: str) -> DeviceRow | None:
    """A user's device."""
    row = await conn.fetchrow(SELECT_DEVICE, user_id, device_id)
    return _device(row) if row is not None else None


SELECT_DEVICES: Final = """
    SELECT user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_user_agent, position
    FROM devices WHERE user_id = ANY($1) ORDER BY user_id, created_ts, device_id
"""


async def list_devices(conn: Connection, user_ids: Sequence[str]) -> list[DeviceRow]:
    """All devices of the users, each user's in the order they were made."""
    return [_device(row) for row in await conn.fetch(SELECT_DEVICES, list(user_ids))]


UPDATE_DISPLAY_NAME: Final = """
    UPDATE devices SET display_name = $3, position = stream_position()
    WHERE user_id = $1 AND device_id = $2
    RETURNING position
"""


async def update_display_name(
    conn: Connection, *, user_id: UserId, device_id: str, display_name: str | None
) -> int | None:
    """Renames a device; its new position, or None if there is no such device."""
    position: int | None = await conn.fetchval(UPDATE_DISPLAY_NAME, user_id, device_id, display_name)
    return position


UPDATE_LAST_SEEN: Final = """
    UPDATE devices AS d SET last_seen_ts = s.ts, last_seen_ip = s.ip, last_seen_user_agent = s.user_agent
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        AS s(user_id, device_id, ts, ip, user_agent)
    WHERE d.user_id = s.user_id AND d.device_id = s.device_id AND coalesce(d.last_seen_ts, 0) < s.ts
"""


async def update_last_seen(conn: Connection, seen: Sequence[DeviceSeen]) -> None:
    """Notes where devices have been seen, each given once."""
    ordered = sorted(seen, key=lambda device: (device.user_id, device.device_id))
    await conn.execute(
        UPDATE_LAST_SEEN,
        [device.user_id for device in ordered],
        [device.device_id for device in ordered],
        [device.ts for device in ordered],
        [device.ip for device in ordered],
        [device.user_agent for device in ordered],
    )


DELETE_DEVICES: Final = """
    DELETE FROM devices WHERE user_id = $1 AND device_id = ANY($2) RETURNING device_id, stream_position() AS position
"""


@dataclass(frozen=True, slots=True)
class DeletedDevices:
    """What a deletion has removed, and the position of the transaction that did it."""

    device_ids: tuple[DeviceId, ...]
    position: int


def _deleted(rows: Sequence[Row]) -> DeletedDevices:
    return DeletedDevices(
        device_ids=tuple(DeviceId(row["device_id"]) for row in rows), position=rows[0]["position"] if rows else 0
    )


async def delete_devices(conn: Connection, *, user_id: UserId, device_ids: Sequence[str]) -> DeletedDevices:
    """Removes devices with their sessions; those that do not exist are passed over."""
    return _deleted(await conn.fetch(DELETE_DEVICES, user_id, list(device_ids)))


DELETE_OTHER_DEVICES: Final = """
    DELETE FROM devices WHERE user_id = $1 AND device_id IS DISTINCT FROM $2
    RETURNING device_id, stream_position() AS position
"""


async def delete_all_devices(conn: Connection, *, user_id: UserId, keep: DeviceId | None) -> DeletedDevices:
    """Removes all devices of a user with their sessions, but not `keep`."""
    return _deleted(await conn.fetch(DELETE_OTHER_DEVICES, user_id, keep))


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_DEVICE_KEYS: Final = """
    SELECT 'user:' || user_id AS key, max(position) AS position FROM devices
    WHERE position >= $1 AND position < $2 GROUP BY user_id LIMIT $3
"""
