"""What happens to keys, and to the messages that wait for a device, when devices come, get another name, and go.

https://spec.matrix.org/v1.19/client-server-api/#device-keys
"""

from collections.abc import Collection, Sequence

from homeserver.core.errors import Forbidden
from homeserver.core.ids import DeviceId, UserId
from homeserver.services.e2ee.device_lists import note_own_changes
from storage.cross_signing_keys import is_cross_signing_key
from storage.database import Connection
from storage.device_keys import delete_keys_of_devices, list_device_keys
from storage.to_device import delete_to_device_of_devices


class KeysOfDevices:
    """A `DeviceObserver` that looks after keys and messages."""

    async def device_added(self, conn: Connection, *, user_id: UserId, device_id: DeviceId) -> Collection[str]:
        """Refuses a device that is called like a cross-signing key of the user.

        Raises:
            Forbidden: it is.
        """
        if await is_cross_signing_key(conn, user_id, device_id):
            raise Forbidden("A cross-signing key has the same name as the device")
        return ()

    async def device_renamed(self, conn: Connection, *, user_id: UserId, device_id: DeviceId) -> Collection[str]:
        """Tells of the name, which is shown beside the keys."""
        if not await list_device_keys(conn, [(user_id, device_id)]):
            return ()
        _, keys = await note_own_changes(conn, user_id, devices=[device_id])
        return keys

    async def devices_deleted(
        self, conn: Connection, *, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> Collection[str]:
        """Removes messages and keys, and tells those who know the keys."""
        await delete_to_device_of_devices(conn, user_id, device_ids)
        if not await delete_keys_of_devices(conn, user_id, device_ids):
            return ()
        _, keys = await note_own_changes(conn, user_id, devices=device_ids)
        return keys
