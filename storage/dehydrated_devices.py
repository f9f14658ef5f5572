"""Dehydrated devices: without a session, with the private keys that a client has encrypted for its user.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class DehydratedDevice:
    """A dehydrated device; `device_data` is a JSON object as text."""

    device_id: DeviceId
    device_data: str


SELECT_DEHYDRATED_DEVICE: Final = "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = $1"


async def find_dehydrated_device(conn: Connection, user_id: UserId) -> DehydratedDevice | None:
    """The user's dehydrated device."""
    row = await conn.fetchrow(SELECT_DEHYDRATED_DEVICE, user_id)
    return DehydratedDevice(DeviceId(row["device_id"]), row["device_data"]) if row is not None else None


INSERT_DEHYDRATED_DEVICE: Final = "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES ($1, $2, $3)"


async def insert_dehydrated_device(conn: Connection, user_id: UserId, device: DehydratedDevice) -> None:
    """Makes a device that there is the dehydrated one of a user who has none; it goes with the device."""
    await conn.execute(INSERT_DEHYDRATED_DEVICE, user_id, device.device_id, device.device_data)


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits for a device, a JSON object as text, and where it stands among the others."""

    place: tuple[int, int]
    message: str


SELECT_WAITING_MESSAGES: Final = """
    SELECT position, serial, message FROM to_device_messages
    WHERE user_id = $1 AND device_id = $2 AND (position, serial) > ($3, $4)
    ORDER BY position, serial
    LIMIT $5
"""


async def list_waiting_messages(
    conn: Connection, *, user_id: UserId, device_id: DeviceId, after: tuple[int, int], limit: int
) -> Sequence[WaitingMessage]:
    """The oldest messages that wait for a device, after a place."""
    rows = await conn.fetch(SELECT_WAITING_MESSAGES, user_id, device_id, *after, limit)
    return [WaitingMessage((row["position"], row["serial"]), row["message"]) for row in rows]
