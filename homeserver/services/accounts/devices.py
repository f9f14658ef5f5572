"""A user's devices: made by logins, renamed, and removed together with their sessions.

What else belongs to a device (keys, messages to it, the list that other servers keep) is told through `DeviceObserver`,
in the same transaction.

https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

import secrets
import string
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from homeserver.core.errors import InvalidParam, NotFound
from homeserver.core.ids import DeviceId, UserId
from homeserver.core.text import is_storable
from homeserver.services.accounts.session_lookup import SessionLookup
from storage import devices, sessions
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.devices import DeletedDevices, DeviceRow, DeviceSeen

DISPLAY_NAME_CHARACTERS_MAX: Final = 256
DEVICES_DELETED_MAX: Final = 1000
_DEVICE_ID_LETTERS: Final = 10


class DeviceObserver(Protocol):
    """Keeps what hangs on devices. It is called in the transaction, and answers which further keys to wake after it."""

    async def device_added(self, conn: Connection, *, user_id: UserId, device_id: DeviceId) -> Collection[str]:
        """A login makes the device.

        Raises:
            Forbidden: a device must not have this id.
        """
        ...

    async def device_renamed(self, conn: Connection, *, user_id: UserId, device_id: DeviceId) -> Collection[str]:
        """The device has another display name."""
        ...

    async def devices_deleted(
        self, conn: Connection, *, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> Collection[str]:
        """The devices are gone."""
        ...

    async def user_erased(self, conn: Connection, *, user_id: UserId) -> Collection[str]:
        """The user's devices are gone for good, and all that is kept for the user beside events shall go."""
        ...


class Devices:
    """The use cases around devices."""

    def __init__(
        self, *, db: Database, bus: Bus, lookup: SessionLookup, observers: Sequence[DeviceObserver] = ()
    ) -> None:
        self._db = db
        self._bus = bus
        self._lookup = lookup
        self._observers = tuple(observers)

    async def list_devices(self, user_id: UserId) -> list[DeviceRow]:
        """All devices of a user."""
        async with self._db.connection() as conn:
            return await devices.list_devices(conn, [user_id])

    async def get(self, user_id: UserId, device_id: DeviceId) -> DeviceRow:
        """One device of a user.

        Raises:
            NotFound: there is none of that id.
        """
        async with self._db.connection() as conn:
            device = await devices.find_device(conn, user_id=user_id, device_id=device_id)
        if device is None:
            raise NotFound("There is no such device")
        return device

    async def rename(self, user_id: UserId, device_id: DeviceId, display_name: str) -> None:
        """Gives a device another name, which is public.

        Raises:
            NotFound: there is no such device.
            InvalidParam: the name is too long, or cannot be stored.
        """
        check_display_name(display_name)
        async with self._db.transaction() as conn:
            position = await devices.update_display_name(
                conn, user_id=user_id, device_id=device_id, display_name=display_name
            )
            if position is None:
                raise NotFound("There is no such device")
            keys = {f"user:{user_id}"}
            for observer in self._observers:
                keys.update(await observer.device_renamed(conn, user_id=user_id, device_id=device_id))
        await self._bus.wake(keys, position)

    async def delete(self, user_id: UserId, device_ids: Sequence[DeviceId]) -> None:
        """Removes devices and ends their sessions at once; those that do not exist are passed over."""
        async with self._db.transaction() as conn:
            deleted = await devices.delete_devices(conn, user_id=user_id, device_ids=device_ids)
            keys = await self.tell_deleted(conn, user_id, deleted)
        self._lookup.forget()
        if keys:
            await self._bus.wake(keys, deleted.position)

    async def delete_all(
        self, user_id: UserId, *, keep_device: DeviceId | None = None, keep_session: int | None = None
    ) -> None:
        """Removes all devices of a user and ends all sessions, but not the named ones."""
        async with self._db.transaction() as conn:
            deleted = await devices.delete_all_devices(conn, user_id=user_id, keep=keep_device)
            await sessions.delete_all_sessions(conn, user_id=user_id, keep=keep_session)
            keys = await self.tell_deleted(conn, user_id, deleted)
        self._lookup.forget()
        if keys:
            await self._bus.wake(keys, deleted.position)

    async def add(self, conn: Connection, seen: DeviceSeen, *, display_name: str | None) -> tuple[int, set[str]]:
        """Makes a device within a login, or finds it; its position, and the keys to wake if it has just been made."""
        upserted = await devices.upsert_device(conn, seen, display_name=display_name)
        if not upserted.made:
            return upserted.position, set()
        keys = {f"user:{seen.user_id}"}
        for observer in self._observers:
            keys.update(await observer.device_added(conn, user_id=seen.user_id, device_id=seen.device_id))
        return upserted.position, keys

    async def tell_deleted(self, conn: Connection, user_id: UserId, deleted: DeletedDevices) -> set[str]:
        """Tells the observers of devices that the transaction has removed; the keys to wake after it."""
        if not deleted.device_ids:
            return set()
        keys = {f"user:{user_id}"}
        for observer in self._observers:
            keys.update(await observer.devices_deleted(conn, user_id=user_id, device_ids=deleted.device_ids))
        return keys

    async def tell_erased(self, conn: Connection, user_id: UserId) -> set[str]:
        """Tells the observers of a user whose devices are gone for good; the keys to wake after the transaction."""
        keys: set[str] = set()
        for observer in self._observers:
            keys.update(await observer.user_erased(conn, user_id=user_id))
        return keys


def check_display_name(display_name: str) -> None:
    """Checks the name of a device.

    Raises:
        InvalidParam: it is too long, or cannot be stored.
    """
    if len(display_name) > DISPLAY_NAME_CHARACTERS_MAX:
        raise InvalidParam(f"A device's name has at most {DISPLAY_NAME_CHARACTERS_MAX} characters")
    if not is_storable(display_name):
        raise InvalidParam("A device's name holds no NUL character")


def new_device_id() -> DeviceId:
    """A new id, which people can read to each other."""
    return DeviceId("".join(secrets.choice(string.ascii_uppercase) for _ in range(_DEVICE_ID_LETTERS)))
