"""What happens to keys, and to the messages that wait for a device, when devices come, get another name, and go.

https://spec.matrix.org/v1.19/client-server-api/#device-keys
"""

from collections.abc import Collection, Sequence

from homeserver.core.encryption_keys import USAGES
from homeserver.core.errors import Forbidden
from homeserver.core.ids import DeviceId, UserId
from homeserver.services.e2ee.device_lists import note_own_changes
from storage.cross_signing_keys import delete_cross_signing_keys, is_cross_signing_key, list_cross_signing_keys
from storage.database import Connection
from storage.device_keys import delete_keys_of_devices, delete_signatures_of_keys, list_device_keys
from storage.device_lists import delete_signed_users
from storage.key_backups import delete_key_backups
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

    async def user_erased(self, conn: Connection, *, user_id: UserId) -> Collection[str]:
        """Removes backups and cross-signing keys, with all signatures by them and on them, and tells of it."""
        await delete_key_backups(conn, user_id)
        await delete_signed_users(conn, user_id)
        stored = await list_cross_signing_keys(conn, [user_id])
        if not stored:
            return ()
        await delete_cross_signing_keys(conn, user_id, USAGES)
        await delete_signatures_of_keys(conn, user_id, [key.public_key for key in stored])
        _, keys = await note_own_changes(conn, user_id, cross_signing=True)
        return keys
