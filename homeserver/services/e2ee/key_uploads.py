"""Keys that a device publishes: its identity, one-time keys and fallback keys.

https://spec.matrix.org/v1.19/client-server-api/#uploading-keys
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.encryption_keys import OneTimeKey, parse_device_keys, parse_one_time_keys
from homeserver.core.errors import InvalidParam
from homeserver.core.ids import DeviceId, UserId
from homeserver.core.requester import Requester
from homeserver.services.e2ee.device_lists import note_own_changes
from storage import device_keys, one_time_keys
from storage.bus.base import Bus
from storage.cross_signing_keys import lock_keys_of_user
from storage.database import Connection, Database

ONE_TIME_KEYS_MAX: Final = 500
"""How many one-time keys of one algorithm a device can have here; clients keep about 50."""
ALGORITHMS_MAX: Final = 20
UPLOADED_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class UploadedKeys:
    """Keys of a device, checked as far as that goes without what is stored.

    Attributes:
        identity: JSON text; None if it is not uploaded.
    """

    user_id: UserId
    device_id: DeviceId
    identity: str | None
    one_time: Sequence[OneTimeKey]
    fallback: Sequence[OneTimeKey]

    @classmethod
    def parse(
        cls, user_id: UserId, device_id: DeviceId, *, identity: object, one_time: object, fallback: object
    ) -> "UploadedKeys":
        """Reads the keys of a device; what is None is not uploaded.

        Raises:
            BadJson, TooLarge: a key has a wrong form, or is too large.
            InvalidParam: the keys name another device, or there are too many.
        """
        keys = None if identity is None else parse_device_keys(identity, user_id=user_id, device_id=device_id)
        given = [] if one_time is None else parse_one_time_keys(one_time, count_max=UPLOADED_MAX)
        standing_by = [] if fallback is None else parse_one_time_keys(fallback, count_max=ALGORITHMS_MAX)
        if len({key.algorithm for key in standing_by}) < len(standing_by):
            raise InvalidParam("There is one fallback key for each algorithm")
        text = None
        if keys is not None:
            text = encode_canonical({name: keys[name] for name in keys if name != "unsigned"}).decode()
        return cls(user_id, device_id, text, given, standing_by)


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What an upload has done.

    Attributes:
        counts: how many one-time keys the device has now, by algorithm.
        position: that of the transaction; 0 if nothing has changed.
        wake: the keys to wake after it.
    """

    counts: Mapping[str, int]
    position: int
    wake: set[str]


class KeyUploads:
    """Takes keys from devices."""

    def __init__(self, *, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus

    async def upload(
        self, requester: Requester, *, identity: object = None, one_time: object = None, fallback: object = None
    ) -> Mapping[str, int]:
        """Stores keys of the requester's device, all or none; what is None is not uploaded.

        Returns:
            How many one-time keys the device has now, by algorithm.

        Raises:
            BadJson, TooLarge: a key has a wrong form, or is too large.
            InvalidParam: the keys name another device, there is another key of the same name already, there are too
                many, or the session belongs to no device.
        """
        if requester.device_id is None:
            raise InvalidParam("To upload keys there must be a device")
        uploaded = UploadedKeys.parse(
            requester.user_id, requester.device_id, identity=identity, one_time=one_time, fallback=fallback
        )
        async with self._db.transaction() as conn:
            await lock_keys_of_user(conn, requester.user_id)
            stored = await store_uploaded_keys(conn, uploaded)
        if stored.wake:
            await self._bus.wake(stored.wake, stored.position)
        return stored.counts


async def store_uploaded_keys(conn: Connection, uploaded: UploadedKeys) -> StoredKeys:
    """Stores keys of a device, in a transaction that holds the lock on the keys of its user.

    Raises:
        InvalidParam: there is another key of the same name already, or there are too many.
    """
    user_id, device_id = uploaded.user_id, uploaded.device_id
    wake: set[str] = set()
    position = 0
    if uploaded.identity is not None and await device_keys.upsert_device_keys(
        conn, user_id=user_id, device_id=device_id, keys=uploaded.identity
    ):
        position, wake = await note_own_changes(conn, user_id, devices=[device_id])
    added = await _add_one_time_keys(conn, uploaded)
    await one_time_keys.upsert_fallback_keys(conn, user_id=user_id, device_id=device_id, keys=uploaded.fallback)
    if added or uploaded.fallback:
        position = await one_time_keys.upsert_key_count_changes(conn, [(user_id, device_id)])
        wake.add(f"user:{user_id}")
    counts = await one_time_keys.get_key_counts(conn, user_id=user_id, device_id=device_id)
    _check_bounds(counts.one_time_keys)
    return StoredKeys(counts.one_time_keys, position, wake)


async def _add_one_time_keys(conn: Connection, uploaded: UploadedKeys) -> bool:
    """Adds those keys that are new; whether there are any."""
    if not uploaded.one_time:
        return False
    user_id, device_id = uploaded.user_id, uploaded.device_id
    known = await one_time_keys.list_one_time_keys(conn, user_id=user_id, device_id=device_id, among=uploaded.one_time)
    kept = {key.name: key for key in known}
    new = []
    for key in uploaded.one_time:
        if key.name not in kept:
            new.append(key)
        elif not _is_same(kept[key.name], key):
            raise InvalidParam(f"There is another one-time key {key.name} already")
    if new:
        await one_time_keys.insert_one_time_keys(conn, user_id=user_id, device_id=device_id, keys=new)
    return bool(new)


def _is_same(one: OneTimeKey, other: OneTimeKey) -> bool:
    """Whether two keys are the same but for signatures, of which a device may make another each time."""
    return bool(_without_signatures(one) == _without_signatures(other))


def _without_signatures(key: OneTimeKey) -> Any:
    value = orjson.loads(key.key)
    return {name: value[name] for name in value if name != "signatures"} if isinstance(value, dict) else value


def _check_bounds(counts: Mapping[str, int]) -> None:
    """Raises InvalidParam, which takes the upload back, if the device has too many keys now."""
    if len(counts) > ALGORITHMS_MAX or any(count > ONE_TIME_KEYS_MAX for count in counts.values()):
        raise InvalidParam(f"A device can have {ONE_TIME_KEYS_MAX} one-time keys of an algorithm")
