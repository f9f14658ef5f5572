"""Cross-signing keys: a user's master key, and the keys for signing own devices and other users.

https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.encryption_keys import (
    MASTER,
    USAGES,
    CrossSigningKey,
    parse_cross_signing_key,
    same_but_signatures,
)
from homeserver.core.errors import Forbidden, MissingParam
from homeserver.core.ids import UserId
from homeserver.services.e2ee.device_lists import note_own_changes
from storage import cross_signing_keys
from storage.bus.base import Bus
from storage.cross_signing_keys import CrossSigningRow
from storage.database import Connection, Database
from storage.device_keys import delete_signatures_of_keys, has_any_device

GivenKeys = Mapping[str, CrossSigningKey]
"""Cross-signing keys by their usage."""


def parse_cross_signing_keys(user_id: UserId, body: Mapping[str, Any]) -> GivenKeys:
    """Reads the keys of an upload, each from its member such as `master_key`.

    Raises:
        BadJson, InvalidParam, TooLarge: a key is wrong.
    """
    named = {usage: body.get(f"{usage}_key") for usage in USAGES}
    return {
        usage: parse_cross_signing_key(value, user_id=user_id, usage=usage)
        for usage, value in named.items()
        if value is not None
    }


class CrossSigning:
    """Takes cross-signing keys from users."""

    def __init__(self, *, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus

    async def needs_authentication(self, user_id: UserId, given: GivenKeys) -> bool:
        """Whether the user must show who it is: it has a master key, and the upload would change something."""
        async with self._db.connection() as conn:
            return _replaces(await _stored(conn, user_id), given)

    async def upload(self, user_id: UserId, given: GivenKeys, *, is_authenticated: bool) -> None:
        """Stores keys. Another master key ends the keys that the old one has signed, unless they come with it.

        Args:
            is_authenticated: the user has just shown who it is.

        Raises:
            MissingParam: there is no master key, neither given nor stored.
            InvalidSignature: a key is not signed by the master key.
            Forbidden: a key is called like a device, or somebody else has just uploaded keys.
        """
        wake: set[str] = set()
        position = 0
        async with self._db.transaction() as conn:
            await cross_signing_keys.lock_keys_of_user(conn, user_id)
            stored = await _stored(conn, user_id)
            if not is_authenticated and _replaces(stored, given):
                raise Forbidden("Other keys have been uploaded meanwhile")
            _check(stored, given)
            if await has_any_device(conn, user_id, [key.public_key for key in given.values()]):
                raise Forbidden("A device has the same name as the key")
            new = {usage: key for usage, key in given.items() if not _is_stored(stored, key)}
            if new:
                await _replace(conn, user_id, stored, new)
                position, wake = await note_own_changes(conn, user_id, cross_signing=True)
        if wake:
            await self._bus.wake(wake, position)


async def _stored(conn: Connection, user_id: UserId) -> GivenKeys:
    rows = await cross_signing_keys.list_cross_signing_keys(conn, [user_id])
    return {row.usage: parse_cross_signing_key(orjson.loads(row.key), user_id=user_id, usage=row.usage) for row in rows}


def _is_stored(stored: GivenKeys, key: CrossSigningKey) -> bool:
    known = stored.get(key.usage)
    return known is not None and same_but_signatures(known.json, key.json)


def _replaces(stored: GivenKeys, given: GivenKeys) -> bool:
    """Whether there is a master key, and an upload brings anything that is not stored yet."""
    return MASTER in stored and not all(_is_stored(stored, key) for key in given.values())


def _check(stored: GivenKeys, given: GivenKeys) -> None:
    """Checks that all keys hang on one master key."""
    master = given.get(MASTER, stored.get(MASTER))
    if master is None:
        raise MissingParam("There is no master key")
    for usage, key in given.items():
        if usage != MASTER:
            key.check_signed_by(master)


async def _replace(conn: Connection, user_id: UserId, stored: GivenKeys, new: GivenKeys) -> None:
    """Stores the new keys, and removes the old ones with what hangs on them."""
    ended: Collection[str] = [usage for usage in new if usage in stored]
    if MASTER in new:
        ended = stored.keys()
        await cross_signing_keys.delete_cross_signing_keys(conn, user_id, ended - new.keys())
    await delete_signatures_of_keys(conn, user_id, [stored[usage].public_key for usage in ended])
    rows = [
        CrossSigningRow(user_id, usage, key.public_key, encode_canonical(key.json).decode())
        for usage, key in new.items()
    ]
    await cross_signing_keys.upsert_cross_signing_keys(conn, rows)
