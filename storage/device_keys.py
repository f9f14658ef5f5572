"""The identity keys of devices, and the signatures that were added to them and to master keys later.

https://spec.matrix.org/v1.19/client-server-api/#device-keys
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class DeviceKeysRow:
    """The identity keys of a device.

    Attributes:
        keys: the JSON object that the device has uploaded.
        display_name: what its user calls the device.
    """

    user_id: UserId
    device_id: DeviceId
    keys: str
    display_name: str | None


UPSERT_DEVICE_KEYS: Final = """
    INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
    ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys WHERE device_keys.keys <> excluded.keys
"""


async def upsert_device_keys(conn: Connection, *, user_id: UserId, device_id: DeviceId, keys: str) -> bool:
    """Stores the keys of a device; whether they are other ones than before."""
    return bool(await conn.execute(UPSERT_DEVICE_KEYS, user_id, device_id, keys) == "INSERT 0 1")


SELECT_DEVICE_KEYS: Final = """
    SELECT k.user_id, k.device_id, k.keys, d.display_name
    FROM unnest($1::text[], $2::text[]) AS wanted (user_id, device_id)
    JOIN device_keys k ON k.user_id = wanted.user_id AND (wanted.device_id IS NULL OR k.device_id = wanted.device_id)
    JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
    ORDER BY k.user_id, k.device_id
"""


async def list_device_keys(conn: Connection, wanted: Collection[tuple[str, str | None]]) -> list[DeviceKeysRow]:
    """The keys of devices, named by user and device, or of all devices of a user where no device is named."""
    rows = await conn.fetch(SELECT_DEVICE_KEYS, [user for user, _ in wanted], [device for _, device in wanted])
    return [
        DeviceKeysRow(UserId(row["user_id"]), DeviceId(row["device_id"]), row["keys"], row["display_name"])
        for row in rows
    ]


SELECT_HAS_DEVICE: Final = "SELECT EXISTS (SELECT FROM devices WHERE user_id = $1 AND device_id = ANY ($2::text[]))"


async def has_any_device(conn: Connection, user_id: UserId, device_ids: Collection[str]) -> bool:
    """Whether a user has a device with one of the ids."""
    return bool(await conn.fetchval(SELECT_HAS_DEVICE, user_id, list(device_ids)))


DELETE_DEVICE_KEYS: Final = "DELETE FROM device_keys WHERE user_id = $1 AND device_id = ANY ($2::text[])"
DELETE_ONE_TIME_KEYS: Final = "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = ANY ($2::text[])"
DELETE_FALLBACK_KEYS: Final = "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = ANY ($2::text[])"
DELETE_KEY_COUNT_CHANGES: Final = "DELETE FROM key_count_changes WHERE user_id = $1 AND device_id = ANY ($2::text[])"
DELETE_SIGNATURES_OF_DEVICES: Final = """
    DELETE FROM key_signatures
    WHERE user_id = $1 AND key_id = ANY ($2::text[]) OR signer_id = $1 AND signer_key_id = ANY ($3::text[])
"""


async def delete_keys_of_devices(conn: Connection, user_id: UserId, device_ids: Sequence[DeviceId]) -> bool:
    """Removes all keys of devices, and the signatures on and by them; whether one of them had identity keys."""
    deleted = await conn.execute(DELETE_DEVICE_KEYS, user_id, device_ids)
    for statement in (DELETE_ONE_TIME_KEYS, DELETE_FALLBACK_KEYS, DELETE_KEY_COUNT_CHANGES):
        await conn.execute(statement, user_id, device_ids)
    signing = [f"ed25519:{device_id}" for device_id in device_ids]
    await conn.execute(DELETE_SIGNATURES_OF_DEVICES, user_id, device_ids, signing)
    return bool(deleted != "DELETE 0")


@dataclass(frozen=True, slots=True)
class KeySignature:
    """A signature by `signer_id` with its key `signer_key_id` (`ed25519:…`) on a user's key.

    Attributes:
        key_id: a device id, or a master key in base64.
    """

    user_id: UserId
    key_id: str
    signer_id: UserId
    signer_key_id: str
    signature: str


UPSERT_KEY_SIGNATURES: Final = """
    INSERT INTO key_signatures (user_id, key_id, signer_id, signer_key_id, signature)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS given (a, b, c, d, e)
    ORDER BY a, b, c, d
    ON CONFLICT (user_id, key_id, signer_id, signer_key_id) DO UPDATE SET signature = excluded.signature
"""


async def upsert_key_signatures(conn: Connection, signatures: Sequence[KeySignature]) -> None:
    """Stores signatures, each key of a signer at most once for each signed key."""
    await conn.execute(
        UPSERT_KEY_SIGNATURES,
        [each.user_id for each in signatures],
        [each.key_id for each in signatures],
        [each.signer_id for each in signatures],
        [each.signer_key_id for each in signatures],
        [each.signature for each in signatures],
    )


SELECT_KEY_SIGNATURES: Final = """
    SELECT user_id, key_id, signer_id, signer_key_id, signature FROM key_signatures
    WHERE user_id = ANY ($1::text[]) AND (signer_id = user_id OR signer_id = $2)
"""


async def list_key_signatures(
    conn: Connection, user_ids: Collection[UserId], *, seen_by: UserId | None
) -> list[KeySignature]:
    """The signatures on users' keys that somebody may see: those by the users themselves, and by who asks."""
    rows = await conn.fetch(SELECT_KEY_SIGNATURES, list(user_ids), seen_by)
    return [
        KeySignature(
            UserId(row["user_id"]), row["key_id"], UserId(row["signer_id"]), row["signer_key_id"], row["signature"]
        )
        for row in rows
    ]


DELETE_SIGNATURES_OF_KEYS: Final = """
    DELETE FROM key_signatures
    WHERE user_id = $1 AND key_id = ANY ($2::text[]) OR signer_id = $1 AND signer_key_id = ANY ($3::text[])
"""


async def delete_signatures_of_keys(conn: Connection, user_id: UserId, public_keys: Collection[str]) -> None:
    """Removes the signatures on and by cross-signing keys of a user that are no longer in use."""
    signing = [f"ed25519:{public_key}" for public_key in public_keys]
    await conn.execute(DELETE_SIGNATURES_OF_KEYS, user_id, list(public_keys), signing)
