"""Takes what other servers tell of changes in their users' devices and cross-signing keys.

What is told changes the list that is kept of the user if it follows just upon that; if anything may be missing, or is
wrong, the list is fetched anew. Clients that share a room with the user are told at once or after that.

https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any, Final, TypeVar

from homeserver.core.device_lists import DEVICES_MAX, DeviceUpdate, parse_device_update, parse_key_update
from homeserver.core.encryption_keys import MASTER, SELF_SIGNING, CrossSigningKey
from homeserver.core.errors import Forbidden, MatrixError
from homeserver.core.ids import ServerName, UserId
from homeserver.services.e2ee.device_list_resync import DeviceListResync, stored_device, stored_key
from homeserver.services.e2ee.device_lists import note_changed_devices
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.remote_device_lists import (
    ListStanding,
    advance_list,
    insert_lists,
    lock_list,
    mark_stale,
    shares_any_room,
)
from storage.remote_devices import (
    count_remote_devices,
    delete_remote_device,
    upsert_remote_devices,
    upsert_remote_keys,
)

DEVICE_LIST_UPDATE: Final = "m.device_list_update"
SIGNING_KEY_UPDATE: Final = "m.signing_key_update"

_Update = TypeVar("_Update")


class _Outcome(Enum):
    """What an update has done to a list."""

    CLEAR = auto()
    """The list agrees with it."""
    UNCLEAR = auto()
    """Something may be missing now."""


_Apply = Callable[[Connection, ListStanding], Awaitable[_Outcome]]


class RemoteDeviceUpdates:
    """Applies updates to the lists that are kept here."""

    def __init__(self, *, db: Database, bus: Bus, resync: DeviceListResync) -> None:
        self._db = db
        self._bus = bus
        self._resync = resync

    async def receive_devices(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        """Takes the content of an `m.device_list_update`; one about a user with whom no room is shared is ignored.

        Raises:
            Forbidden: it is about a user of another server.
            InvalidParam: it names no user.
        """
        user_id = _user_of(origin, content)
        update = _parsed(partial(parse_device_update, content, user_id=user_id))
        await self._take(user_id, partial(_apply_devices, user_id=user_id, update=update))

    async def receive_keys(self, origin: ServerName, content: Mapping[str, Any]) -> None:
        """Takes the content of an `m.signing_key_update`; otherwise as `receive_devices`."""
        user_id = _user_of(origin, content)
        keys = _parsed(partial(parse_key_update, content, user_id=user_id))
        await self._take(user_id, partial(_apply_keys, user_id=user_id, keys=keys))

    async def _take(self, user_id: UserId, apply: _Apply) -> None:
        async with self._db.transaction() as conn:
            if not await shares_any_room(conn, user_id):
                return
            # Of whoever has keys, somebody will soon want the list.
            await insert_lists(conn, [user_id], retry_at_ts=0)
            standing = await lock_list(conn, user_id)
            outcome = _Outcome.UNCLEAR if standing is None else await apply(conn, standing)
            if outcome is _Outcome.UNCLEAR:
                await mark_stale(conn, user_id)
            # If the list is about to be fetched, its outcome is told.
            wake: Collection[str] = ()
            position = 0
            if outcome is _Outcome.CLEAR or (standing is not None and standing.failures > 0):
                position, wake = await note_changed_devices(conn, [user_id])
        if wake:
            await self._bus.wake(wake, position)
        if outcome is _Outcome.UNCLEAR:
            self._resync.look_soon()


def _user_of(origin: ServerName, content: Mapping[str, Any]) -> UserId:
    user_id = UserId.parse(content.get("user_id"))
    if user_id.server_name != origin:
        raise Forbidden("A server tells of its own users only")
    return user_id


def _parsed(parse: Callable[[], _Update]) -> _Update | None:
    """What was told; None if it is wrong: then something has changed, whatever it is."""
    try:
        return parse()
    except MatrixError:
        return None


async def _apply_devices(
    conn: Connection, standing: ListStanding, *, user_id: UserId, update: DeviceUpdate | None
) -> _Outcome:
    if not standing.is_whole or update is None:
        return _Outcome.UNCLEAR
    if update.stream_id == standing.stream_id:
        # It came with the list, of which not every client need have been told.
        return _Outcome.CLEAR
    # The first update follows upon none; a list that was told before it is number 0.
    if standing.stream_id not in (update.prev_ids or (0,)):
        return _Outcome.UNCLEAR
    if update.device is None:
        await delete_remote_device(conn, user_id, update.device_id)
    elif await count_remote_devices(conn, user_id) < DEVICES_MAX:
        await upsert_remote_devices(conn, user_id, [stored_device(user_id, update.device)])
    else:
        return _Outcome.UNCLEAR
    await advance_list(conn, user_id, stream_id=update.stream_id)
    return _Outcome.CLEAR


async def _apply_keys(
    conn: Connection, standing: ListStanding, *, user_id: UserId, keys: Sequence[CrossSigningKey] | None
) -> _Outcome:
    if not standing.is_whole or standing.stream_id is None or keys is None:
        return _Outcome.UNCLEAR
    is_changed = await upsert_remote_keys(conn, user_id, [stored_key(key) for key in keys])
    usages = {key.usage for key in keys}
    if is_changed and MASTER in usages and SELF_SIGNING not in usages:
        # Whether the self-signing key that is known belongs to the new master key is not said.
        return _Outcome.UNCLEAR
    await advance_list(conn, user_id, stream_id=standing.stream_id)
    return _Outcome.CLEAR
