"""Messages to devices: stored until the device has confirmed them.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, ServerName, UserId
from storage.database import Connection

ALL_DEVICES: Final = "*"

SELECT_TO_DEVICE: Final = """
    SELECT position, message FROM to_device_messages
    WHERE user_id = $1 AND device_id = $2 AND position < $3
    ORDER BY position, serial
    LIMIT $4
"""
DELETE_TO_DEVICE: Final = "DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = $2 AND position < $3"


@dataclass(frozen=True, slots=True)
class ToDeviceMessage:
    """A message to a device; `message` is a JSON object as text."""

    position: int
    message: str


async def list_to_device(
    conn: Connection, *, user_id: UserId, device_id: DeviceId, upto: int, limit: int
) -> list[ToDeviceMessage]:
    """The oldest messages that wait for a device."""
    rows = await conn.fetch(SELECT_TO_DEVICE, user_id, device_id, upto, limit)
    return [ToDeviceMessage(row["position"], row["message"]) for row in rows]


async def delete_to_device(conn: Connection, *, user_id: UserId, device_id: DeviceId, upto: int) -> None:
    """Removes the messages that a device has confirmed."""
    await conn.execute(DELETE_TO_DEVICE, user_id, device_id, upto)


DELETE_TO_DEVICE_OF_DEVICES: Final = (
    "DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = ANY ($2::text[])"
)


async def delete_to_device_of_devices(conn: Connection, user_id: UserId, device_ids: Collection[DeviceId]) -> None:
    """Removes all messages to devices that are gone."""
    await conn.execute(DELETE_TO_DEVICE_OF_DEVICES, user_id, list(device_ids))


@dataclass(frozen=True, slots=True)
class NewToDeviceMessage:
    """A message to be stored; `device_id` may be `*`, for all devices of the user."""

    user_id: UserId
    device_id: str
    message: str


INSERT_TO_DEVICE: Final = """
    INSERT INTO to_device_messages (user_id, device_id, message)
    SELECT d.user_id, d.device_id, given.message
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS given (user_id, device_id, message, number)
    JOIN devices d ON d.user_id = given.user_id AND (given.device_id = '*' OR d.device_id = given.device_id)
    ORDER BY given.number, d.device_id
    RETURNING user_id, position
"""


async def insert_to_device(conn: Connection, messages: Sequence[NewToDeviceMessage]) -> tuple[set[UserId], int | None]:
    """Stores messages for local devices; devices that do not exist are passed over.

    Returns:
        The users who have got something, and the position; None if nobody has.
    """
    rows = await conn.fetch(
        INSERT_TO_DEVICE,
        [each.user_id for each in messages],
        [each.device_id for each in messages],
        [each.message for each in messages],
    )
    return {UserId(row["user_id"]) for row in rows}, rows[0]["position"] if rows else None


INSERT_TO_DEVICE_REQUEST: Final = """
    WITH swept AS (DELETE FROM to_device_requests WHERE received_ts < $6)
    INSERT INTO to_device_requests (user_id, device_id, type, transaction_id, received_ts) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
"""


async def insert_to_device_request(
    conn: Connection,
    *,
    user_id: UserId,
    device_id: DeviceId | None,
    event_type: str,
    transaction_id: str,
    now_ms: int,
    kept_ms: int,
) -> bool:
    """Notes a request, and forgets those older than `kept_ms`; False if this one has been taken before."""
    status = await conn.execute(
        INSERT_TO_DEVICE_REQUEST, user_id, device_id or "", event_type, transaction_id, now_ms, now_ms - kept_ms
    )
    return bool(status == "INSERT 0 1")


INSERT_RECEIVED_TO_DEVICE: Final = """
    WITH swept AS (DELETE FROM received_to_device WHERE received_ts < $4)
    INSERT INTO received_to_device (origin, message_id, received_ts) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING
"""


async def insert_received_to_device(
    conn: Connection, *, origin: ServerName, message_id: str, now_ms: int, kept_ms: int
) -> bool:
    """Notes a message of another server, and forgets those older than `kept_ms`; False if it has come before."""
    status = await conn.execute(INSERT_RECEIVED_TO_DEVICE, origin, message_id, now_ms, now_ms - kept_ms)
    return bool(status == "INSERT 0 1")
