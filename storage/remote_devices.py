"""What stands in the device lists of other servers' users: devices with their keys, and cross-signing keys.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class RemoteDeviceRow:
    """A device; `keys` is the JSON object of its identity keys."""

    user_id: UserId
    device_id: DeviceId
    keys: str
    display_name: str | None


SELECT_REMOTE_DEVICES: Final = """
    SELECT d.user_id, d.device_id, d.keys, d.display_name
    FROM unnest($1::text[], $2::text[]) AS wanted (user_id, device_id)
    JOIN remote_devices d ON d.user_id = wanted.user_id AND (wanted.device_id IS NULL OR d.device_id = wanted.device_id)
    ORDER BY d.user_id, d.device_id
"""


async def list_remote_devices(conn: Connection, wanted: Collection[tuple[UserId, str | None]]) -> list[RemoteDeviceRow]:
    """Devices, named by user and device, or all devices of a user where no device is named."""
    rows = await conn.fetch(SELECT_REMOTE_DEVICES, [user for user, _ in wanted], [device for _, device in wanted])
    return [
        RemoteDeviceRow(UserId(row["user_id"]), DeviceId(row["device_id"]), row["keys"], row["display_name"])
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class RemoteKeyRow:
    """A cross-signing key for a usage; `key` is a JSON object."""

    user_id: UserId
    usage: str
    key: str


SELECT_REMOTE_KEYS: Final = """
    SELECT user_id, usage, key FROM remote_cross_signing_keys WHERE user_id = ANY ($1::text[])
"""


async def list_remote_keys(conn: Connection, user_ids: Collection[UserId]) -> list[RemoteKeyRow]:
    """The cross-signing keys of users."""
    rows = await conn.fetch(SELECT_REMOTE_KEYS, list(user_ids))
    return [RemoteKeyRow(UserId(row["user_id"]), row["usage"], row["key"]) for row in rows]


DELETE_OTHER_DEVICES: Final = "DELETE FROM remote_devices WHERE user_id = $1 AND device_id <> ALL ($2::text[])"
UPSERT_REMOTE_DEVICES: Final = """
    INSERT INTO remote_devices AS d (user_id, device_id, keys, display_name)
    SELECT $1, given.* FROM unnest($2::text[], $3::text[], $4::text[]) AS given (device_id, keys, display_name)
    ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys, display_name = excluded.display_name
    WHERE (d.keys, d.display_name) IS DISTINCT FROM (excluded.keys, excluded.display_name)
"""


async def upsert_remote_devices(conn: Connection, user_id: UserId, devices: Sequence[RemoteDeviceRow]) -> bool:
    """Adds or replaces devices of a list, each at most once; whether that changes anything."""
    status = await conn.execute(
        UPSERT_REMOTE_DEVICES,
        user_id,
        [device.device_id for device in devices],
        [device.keys for device in devices],
        [device.display_name for device in devices],
    )
    return bool(status != "INSERT 0 0")


async def replace_remote_devices(conn: Connection, user_id: UserId, devices: Sequence[RemoteDeviceRow]) -> bool:
    """Lets a list have these devices and no others; whether that changes anything."""
    deleted = await conn.execute(DELETE_OTHER_DEVICES, user_id, [device.device_id for device in devices])
    return await upsert_remote_devices(conn, user_id, devices) or bool(deleted != "DELETE 0")


DELETE_REMOTE_DEVICE: Final = "DELETE FROM remote_devices WHERE user_id = $1 AND device_id = $2"


async def delete_remote_device(conn: Connection, user_id: UserId, device_id: DeviceId) -> None:
    """Takes a device out of a list."""
    await conn.execute(DELETE_REMOTE_DEVICE, user_id, device_id)


COUNT_REMOTE_DEVICES: Final = "SELECT count(*) FROM remote_devices WHERE user_id = $1"


async def count_remote_devices(conn: Connection, user_id: UserId) -> int:
    """How many devices stand in a list."""
    return int(await conn.fetchval(COUNT_REMOTE_DEVICES, user_id))


DELETE_OTHER_KEYS: Final = "DELETE FROM remote_cross_signing_keys WHERE user_id = $1 AND usage <> ALL ($2::text[])"
UPSERT_REMOTE_KEYS: Final = """
    INSERT INTO remote_cross_signing_keys AS k (user_id, usage, key)
    SELECT $1, given.* FROM unnest($2::text[], $3::text[]) AS given (usage, key)
    ON CONFLICT (user_id, usage) DO UPDATE SET key = excluded.key WHERE k.key <> excluded.key
"""


async def upsert_remote_keys(conn: Connection, user_id: UserId, keys: Sequence[RemoteKeyRow]) -> bool:
    """Adds or replaces cross-signing keys, each usage at most once; whether that changes anything."""
    usages = [key.usage for key in keys]
    return bool(await conn.execute(UPSERT_REMOTE_KEYS, user_id, usages, [key.key for key in keys]) != "INSERT 0 0")


async def replace_remote_keys(conn: Connection, user_id: UserId, keys: Sequence[RemoteKeyRow]) -> bool:
    """Lets a user have these cross-signing keys and no others; whether that changes anything."""
    deleted = await conn.execute(DELETE_OTHER_KEYS, user_id, [key.usage for key in keys])
    return await upsert_remote_keys(conn, user_id, keys) or bool(deleted != "DELETE 0")
