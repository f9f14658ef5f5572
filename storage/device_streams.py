"""What is told to devices in a sync: messages to the device, and whose devices have changed.

https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection

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


SELECT_CHANGED_DEVICE_LISTS: Final = """
    SELECT d.user_id FROM device_list_changes d
    WHERE d.position >= $2 AND d.position < $3 AND (d.user_id = $1 OR EXISTS (
        SELECT FROM memberships mine JOIN memberships theirs USING (room_nid)
        WHERE mine.user_id = $1 AND mine.membership = 'join'
            AND theirs.user_id = d.user_id AND theirs.membership = 'join'
    ))
"""


async def list_changed_device_lists(conn: Connection, user_id: UserId, *, since: int, upto: int) -> Sequence[UserId]:
    """Those who share a room with a user, and the user itself, whose devices changed between two positions."""
    rows = await conn.fetch(SELECT_CHANGED_DEVICE_LISTS, user_id, since, upto)
    return [UserId(row["user_id"]) for row in rows]
