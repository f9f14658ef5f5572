"""Dehydrated devices: a user's device without a session, to which keys are sent while the user has no other one.

A client makes it, and leaves its private keys here, encrypted with a key of the secret storage. A later client fetches
them, takes the messages that have come meanwhile, and leaves another dehydrated device in its place. The messages stay
until then, for a client may be interrupted, and several may take them.

The specification has it not yet.

https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import DeviceId, UserId
from homeserver.services.accounts.devices import Devices, check_display_name
from homeserver.services.e2ee.key_uploads import UploadedKeys, store_uploaded_keys
from storage.bus.base import Bus
from storage.cross_signing_keys import lock_keys_of_user
from storage.database import Connection, Database
from storage.dehydrated_devices import (
    DehydratedDevice,
    find_dehydrated_device,
    insert_dehydrated_device,
    list_waiting_messages,
)
from storage.devices import DeviceSeen, delete_devices, find_device

DEVICE_DATA_BYTES_MAX: Final = 65_536
MESSAGES_MAX: Final = 100
_DIGITS_MAX: Final = 18


class DehydratedDevices:
    """The dehydrated device of each user, if there is one."""

    def __init__(self, *, db: Database, bus: Bus, devices: Devices) -> None:
        self._db = db
        self._bus = bus
        self._devices = devices

    async def put(
        self, made: DeviceSeen, keys: UploadedKeys, *, device_data: Mapping[str, Any], display_name: str | None
    ) -> None:
        """Makes a device with its keys, in place of the dehydrated one that there may be, whose messages go.

        Args:
            made: whose it is, its id, and when and where it is made.
            device_data: what the client needs to use it later.

        Raises:
            InvalidParam: there is such a device, with a session; the keys, the data or the name are not acceptable.
        """
        if display_name is not None:
            check_display_name(display_name)
        encoded = encode_canonical(device_data)
        if len(encoded) > DEVICE_DATA_BYTES_MAX:
            raise InvalidParam(f"device_data has at most {DEVICE_DATA_BYTES_MAX} bytes")
        async with self._db.transaction() as conn:
            await lock_keys_of_user(conn, made.user_id)
            _, wake = await self._remove(conn, made.user_id)
            if await find_device(conn, user_id=made.user_id, device_id=made.device_id) is not None:
                raise InvalidParam("There is another device of this id")
            position, keys_to_wake = await self._devices.add(conn, made, display_name=display_name)
            stored = await store_uploaded_keys(conn, keys)
            await insert_dehydrated_device(conn, made.user_id, DehydratedDevice(made.device_id, encoded.decode()))
        await self._bus.wake(wake | keys_to_wake | stored.wake, position)

    async def get(self, user_id: UserId) -> DehydratedDevice:
        """The user's dehydrated device.

        Raises:
            NotFound: there is none.
        """
        async with self._db.connection() as conn:
            return await _find(conn, user_id)

    async def delete(self, user_id: UserId) -> DeviceId:
        """Removes the user's dehydrated device with its keys and messages; its id.

        Raises:
            NotFound: there is none.
        """
        async with self._db.transaction() as conn:
            await lock_keys_of_user(conn, user_id)
            device = await _find(conn, user_id)
            position, wake = await self._remove(conn, user_id)
        await self._bus.wake(wake, position)
        return device.device_id

    async def list_messages(
        self, user_id: UserId, device_id: str, *, since: str | None
    ) -> tuple[Sequence[str], str | None]:
        """A page of the messages that wait for the dehydrated device, the oldest first, each a JSON text.

        Args:
            since: where an earlier page ended.

        Returns:
            The messages, and where the page ends; None if it is empty.

        Raises:
            NotFound: this is not the user's dehydrated device.
            InvalidParam: `since` is not from this server.
        """
        after = (0, 0) if since is None else _parse_place(since)
        async with self._db.connection() as conn:
            device = await _find(conn, user_id)
            if device.device_id != device_id:
                raise NotFound("There is no such dehydrated device")
            found = await list_waiting_messages(
                conn, user_id=user_id, device_id=device.device_id, after=after, limit=MESSAGES_MAX
            )
        return [each.message for each in found], "_".join(map(str, found[-1].place)) if found else None

    async def _remove(self, conn: Connection, user_id: UserId) -> tuple[int, set[str]]:
        """Removes the dehydrated device that there may be; the position, and the keys to wake."""
        device = await find_dehydrated_device(conn, user_id)
        if device is None:
            return 0, set()
        deleted = await delete_devices(conn, user_id=user_id, device_ids=[device.device_id])
        return deleted.position, await self._devices.tell_deleted(conn, user_id, deleted)


async def _find(conn: Connection, user_id: UserId) -> DehydratedDevice:
    device = await find_dehydrated_device(conn, user_id)
    if device is None:
        raise NotFound("There is no dehydrated device")
    return device


def _parse_place(since: str) -> tuple[int, int]:
    numbers = since.split("_")
    if len(numbers) != 2 or not all(
        number.isascii() and number.isdigit() and len(number) <= _DIGITS_MAX for number in numbers
    ):
        raise InvalidParam("This is no place among the messages")
    return int(numbers[0]), int(numbers[1])
