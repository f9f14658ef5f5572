"""Backups of message keys, which clients encrypt for themselves and restore on a new device.

https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import BadJson, InvalidParam, NotFound, WrongRoomKeysVersion
from homeserver.core.ids import ID_BYTES_MAX, RoomId, UserId
from homeserver.core.text import is_storable
from storage import key_backups
from storage.database import Connection, Database
from storage.key_backups import BackedUpKey, KeyBackupRow, KeyBackupSize

ALGORITHM_BYTES_MAX: Final = 255
AUTH_DATA_BYTES_MAX: Final = 65_536
_INTEGER_MAX: Final = 2**53 - 1
_VERSION_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class KeySelection:
    """Keys of a backup: all of them, those of a room, or that of one session in it."""

    room_id: RoomId | None = None
    session_id: str | None = None


class KeyBackups:
    """The backups of each user."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    async def create(self, user_id: UserId, *, algorithm: str, auth_data: Mapping[str, Any]) -> str:
        """Makes a backup, which is the current one from now on; its version.

        Raises:
            InvalidParam: the name of the algorithm, or its data, is too large or cannot be stored.
        """
        if not is_storable(algorithm) or not 0 < len(algorithm.encode()) <= ALGORITHM_BYTES_MAX:
            raise InvalidParam(f"algorithm has 1 to {ALGORITHM_BYTES_MAX} bytes")
        encoded = _encoded_auth_data(auth_data)
        async with self._db.transaction() as conn:
            version = await key_backups.insert_key_backup(conn, user_id, algorithm=algorithm, auth_data=encoded)
        return str(version)

    async def get(self, user_id: UserId, version: str | None = None) -> Mapping[str, Any]:
        """What is known of a backup, or of the current one, ready to be sent.

        Raises:
            NotFound: there is none.
        """
        async with self._db.connection() as conn:
            backup = await _get(conn, user_id, version)
        return {
            "version": str(backup.version),
            "algorithm": backup.algorithm,
            "auth_data": orjson.Fragment(backup.auth_data),
            "count": backup.key_count,
            "etag": str(backup.etag),
        }

    async def update(
        self,
        user_id: UserId,
        version: str,
        *,
        algorithm: str,
        auth_data: Mapping[str, Any],
        named_version: str | None = None,
    ) -> None:
        """Replaces the `auth_data` of a backup; `named_version` is what the body says, if it says something.

        Raises:
            NotFound: there is no such backup.
            InvalidParam: the body names another algorithm or version, or its data is too large.
        """
        if named_version is not None and named_version != version:
            raise InvalidParam("The version in the body is not the one in the path")
        encoded = _encoded_auth_data(auth_data)
        async with self._db.transaction() as conn:
            await key_backups.lock_key_backups(conn, user_id)
            backup = await _get(conn, user_id, version)
            if backup.algorithm != algorithm:
                raise InvalidParam("The algorithm of a backup cannot be changed")
            await key_backups.update_auth_data(conn, user_id, backup.version, encoded)

    async def delete(self, user_id: UserId, version: str) -> None:
        """Deletes a backup and its keys; it may be deleted already.

        Raises:
            NotFound: there never was such a backup.
        """
        number = _number(version)
        async with self._db.transaction() as conn:
            await key_backups.lock_key_backups(conn, user_id)
            if number is None or not await key_backups.delete_key_backup(conn, user_id, number):
                raise NotFound("Unknown backup version")

    async def put_keys(self, user_id: UserId, version: str, keys: Sequence[BackedUpKey]) -> Mapping[str, Any]:
        """Adds keys to the current backup; of two for one session the better one stays. The answer for the client.

        Raises:
            NotFound: there is no backup.
            WrongRoomKeysVersion: the version is not that of the current one.
        """
        async with self._db.transaction() as conn:
            await key_backups.lock_key_backups(conn, user_id)
            current = await _get(conn, user_id)
            if current.version != _number(version):
                raise WrongRoomKeysVersion("Wrong backup version", current_version=str(current.version))
            size = await key_backups.upsert_keys(conn, user_id, current.version, keys)
        return _size_json(size)

    async def list_keys(self, user_id: UserId, version: str, selection: KeySelection) -> list[BackedUpKey]:
        """The chosen keys of a backup.

        Raises:
            NotFound: there is no such backup.
        """
        async with self._db.connection() as conn:
            backup = await _get(conn, user_id, version)
            return await key_backups.list_keys(
                conn, user_id, backup.version, room_id=selection.room_id, session_id=selection.session_id
            )

    async def delete_keys(self, user_id: UserId, version: str, selection: KeySelection) -> Mapping[str, Any]:
        """Removes the chosen keys from a backup; the answer for the client.

        Raises:
            NotFound: there is no such backup.
        """
        async with self._db.transaction() as conn:
            await key_backups.lock_key_backups(conn, user_id)
            backup = await _get(conn, user_id, version)
            size = await key_backups.delete_keys(
                conn, user_id, backup.version, room_id=selection.room_id, session_id=selection.session_id
            )
        return _size_json(size)


def parse_rooms(value: object) -> list[BackedUpKey]:
    """Reads the keys of several rooms, `{room id: {"sessions": …}}`. It is checked by hand: there may be very many.

    Raises:
        BadJson: it has another form.
        InvalidParam: an id or a number is none.
    """
    if not isinstance(value, dict):
        raise BadJson("rooms must be an object")
    return [key for room_id, room in value.items() for key in parse_sessions(RoomId.parse(room_id), room)]


def parse_sessions(room_id: RoomId, value: object) -> list[BackedUpKey]:
    """Reads the keys of one room, `{"sessions": {session id: key}}`; raises as `parse_rooms`."""
    sessions = value.get("sessions") if isinstance(value, dict) else None
    if not isinstance(sessions, dict):
        raise BadJson("sessions must be an object")
    return [parse_key(room_id, session_id, key) for session_id, key in sessions.items()]


def parse_key(room_id: RoomId, session_id: str, value: object) -> BackedUpKey:
    """Reads one key; raises as `parse_rooms`."""
    if not session_id or not is_storable(session_id) or len(session_id.encode()) > ID_BYTES_MAX:
        raise InvalidParam(f"A session id has 1 to {ID_BYTES_MAX} bytes")
    if not isinstance(value, dict):
        raise BadJson("A key must be an object")
    is_verified, session_data = value.get("is_verified"), value.get("session_data")
    if not isinstance(is_verified, bool) or not isinstance(session_data, dict):
        raise BadJson("A key has is_verified (a boolean) and session_data (an object)")
    return BackedUpKey(
        room_id=room_id,
        session_id=session_id,
        first_message_index=_natural(value, "first_message_index"),
        forwarded_count=_natural(value, "forwarded_count"),
        is_verified=is_verified,
        session_data=encode_canonical(session_data).decode(),
    )


def _natural(value: Mapping[str, Any], name: str) -> int:
    number = value.get(name)
    if type(number) is not int or not 0 <= number <= _INTEGER_MAX:
        raise BadJson(f"{name} must be an integer, not negative")
    return number


def _encoded_auth_data(auth_data: Mapping[str, Any]) -> str:
    encoded = encode_canonical(auth_data)
    if len(encoded) > AUTH_DATA_BYTES_MAX:
        raise InvalidParam(f"auth_data has at most {AUTH_DATA_BYTES_MAX} bytes")
    return encoded.decode()


async def _get(conn: Connection, user_id: UserId, version: str | None = None) -> KeyBackupRow:
    """A backup, or the current one."""
    number = None if version is None else _number(version)
    backup = None
    if version is None or number is not None:
        backup = await key_backups.find_key_backup(conn, user_id, number)
    if backup is None:
        raise NotFound("No current backup version" if version is None else "Unknown backup version")
    return backup


def _number(version: str) -> int | None:
    """The number in a version; None for what this server has never given out."""
    is_number = version.isascii() and version.isdigit() and len(version) <= _VERSION_DIGITS_MAX
    return int(version) if is_number and str(int(version)) == version else None


def _size_json(size: KeyBackupSize) -> dict[str, Any]:
    return {"count": size.key_count, "etag": str(size.etag)}
