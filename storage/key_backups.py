"""Backups of message keys: their versions, and the keys in them.

https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class KeyBackupRow:
    """A backup that is not deleted.

    Attributes:
        auth_data: a JSON object as text.
        etag: another number after each change of the keys.
    """

    version: int
    algorithm: str
    auth_data: str
    etag: int
    key_count: int


@dataclass(frozen=True, slots=True)
class BackedUpKey:
    """A key in a backup; `session_data` is a JSON object as text."""

    room_id: RoomId
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: str


@dataclass(frozen=True, slots=True)
class KeyBackupSize:
    """What a backup is like after a change."""

    key_count: int
    etag: int


def _backup(row: Row) -> KeyBackupRow:
    return KeyBackupRow(row["version"], row["algorithm"], row["auth_data"], row["etag"], row["key_count"])


# Two requests of one user that come at the same time must not get the same number: the first locks the user's row.
LOCK_USER: Final = "SELECT FROM users WHERE user_id = $1 FOR NO KEY UPDATE"
INSERT_KEY_BACKUP: Final = """
    INSERT INTO key_backups (user_id, version, algorithm, auth_data)
    SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM key_backups WHERE user_id = $1
    RETURNING version
"""


async def insert_key_backup(conn: Connection, user_id: UserId, *, algorithm: str, auth_data: str) -> int:
    """Makes a backup, which is the current one from now on; its version. It needs a transaction."""
    await conn.execute(LOCK_USER, user_id)
    return int(await conn.fetchval(INSERT_KEY_BACKUP, user_id, algorithm, auth_data))


SELECT_CURRENT_KEY_BACKUP: Final = """
    SELECT version, algorithm, auth_data, etag, key_count FROM key_backups
    WHERE user_id = $1 AND NOT deleted
    ORDER BY version DESC
    LIMIT 1
"""
SELECT_KEY_BACKUP: Final = """
    SELECT version, algorithm, auth_data, etag, key_count FROM key_backups
    WHERE user_id = $1 AND version = $2 AND NOT deleted
"""


async def find_key_backup(conn: Connection, user_id: UserId, version: int | None = None) -> KeyBackupRow | None:
    """A backup by its version, or the current one; None if there is none, or it is deleted."""
    if version is None:
        row = await conn.fetchrow(SELECT_CURRENT_KEY_BACKUP, user_id)
    else:
        row = await conn.fetchrow(SELECT_KEY_BACKUP, user_id, version)
    return None if row is None else _backup(row)


LOCK_KEY_BACKUPS: Final = "SELECT version FROM key_backups WHERE user_id = $1 ORDER BY version FOR NO KEY UPDATE"


async def lock_key_backups(conn: Connection, user_id: UserId) -> None:
    """Keeps a user's backups as they are until the transaction ends."""
    await conn.execute(LOCK_KEY_BACKUPS, user_id)


UPDATE_AUTH_DATA: Final = "UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2 AND NOT deleted"


async def update_auth_data(conn: Connection, user_id: UserId, version: int, auth_data: str) -> None:
    """Replaces the `auth_data` of a backup."""
    await conn.execute(UPDATE_AUTH_DATA, user_id, version, auth_data)


DELETE_KEYS_OF_BACKUP: Final = "DELETE FROM key_backup_keys WHERE user_id = $1 AND version = $2"
UPDATE_KEY_BACKUP_DELETED: Final = """
    UPDATE key_backups SET deleted = true, auth_data = '{}', key_count = 0, etag = etag + 1
    WHERE user_id = $1 AND version = $2
    RETURNING version
"""


async def delete_key_backup(conn: Connection, user_id: UserId, version: int) -> bool:
    """Deletes a backup with its keys; False if there never was one of this version. It needs a transaction."""
    found = await conn.fetchval(UPDATE_KEY_BACKUP_DELETED, user_id, version)
    await conn.execute(DELETE_KEYS_OF_BACKUP, user_id, version)
    return found is not None


DELETE_KEYS_OF_BACKUPS: Final = "DELETE FROM key_backup_keys WHERE user_id = $1"
UPDATE_KEY_BACKUPS_DELETED: Final = """
    UPDATE key_backups SET deleted = true, auth_data = '{}', key_count = 0, etag = etag + 1
    WHERE user_id = $1 AND NOT deleted
"""


async def delete_key_backups(conn: Connection, user_id: UserId) -> None:
    """Deletes all backups of a user with their keys. It needs a transaction."""
    await conn.execute(UPDATE_KEY_BACKUPS_DELETED, user_id)
    await conn.execute(DELETE_KEYS_OF_BACKUPS, user_id)


# Of two keys for a session the better one stays: verified, then from an earlier message on, then less often forwarded.
UPSERT_KEYS: Final = """
    WITH written AS (
        INSERT INTO key_backup_keys AS kept (
            user_id, version, room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
        )
        SELECT $1, $2, given.* FROM unnest(
            $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[], $8::text[]
        ) AS given (room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
        ORDER BY given.room_id, given.session_id
        ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET
            first_message_index = excluded.first_message_index,
            forwarded_count = excluded.forwarded_count,
            is_verified = excluded.is_verified,
            session_data = excluded.session_data
        WHERE (excluded.is_verified, -excluded.first_message_index, -excluded.forwarded_count)
            > (kept.is_verified, -kept.first_message_index, -kept.forwarded_count)
        RETURNING xmax = 0 AS is_new
    )
    UPDATE key_backups SET
        key_count = key_count + (SELECT count(*) FROM written WHERE is_new),
        etag = etag + (SELECT least(count(*), 1) FROM written)
    WHERE user_id = $1 AND version = $2
    RETURNING key_count, etag
"""


async def upsert_keys(conn: Connection, user_id: UserId, version: int, keys: Sequence[BackedUpKey]) -> KeyBackupSize:
    """Adds keys, each session at most once, to a backup that is there; where it has a better one, that stays."""
    row = await conn.fetchrow(
        UPSERT_KEYS,
        user_id,
        version,
        [key.room_id for key in keys],
        [key.session_id for key in keys],
        [key.first_message_index for key in keys],
        [key.forwarded_count for key in keys],
        [key.is_verified for key in keys],
        [key.session_data for key in keys],
    )
    assert row is not None, "The caller has locked the backup"
    return KeyBackupSize(row["key_count"], row["etag"])


SELECT_KEYS: Final = """
    SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data FROM key_backup_keys
    WHERE user_id = $1 AND version = $2 AND ($3::text IS NULL OR room_id = $3) AND ($4::text IS NULL OR session_id = $4)
    ORDER BY room_id, session_id
"""


async def list_keys(
    conn: Connection, user_id: UserId, version: int, *, room_id: RoomId | None = None, session_id: str | None = None
) -> list[BackedUpKey]:
    """The keys of a backup; those of a room, or of a session in it, if they are named."""
    rows = await conn.fetch(SELECT_KEYS, user_id, version, room_id, session_id)
    return [
        BackedUpKey(
            room_id=RoomId(row["room_id"]),
            session_id=row["session_id"],
            first_message_index=row["first_message_index"],
            forwarded_count=row["forwarded_count"],
            is_verified=row["is_verified"],
            session_data=row["session_data"],
        )
        for row in rows
    ]


DELETE_KEYS: Final = """
    WITH removed AS (
        DELETE FROM key_backup_keys
        WHERE user_id = $1 AND version = $2 AND ($3::text IS NULL OR room_id = $3)
            AND ($4::text IS NULL OR session_id = $4)
        RETURNING session_id
    )
    UPDATE key_backups SET
        key_count = key_count - (SELECT count(*) FROM removed),
        etag = etag + (SELECT least(count(*), 1) FROM removed)
    WHERE user_id = $1 AND version = $2
    RETURNING key_count, etag
"""


async def delete_keys(
    conn: Connection, user_id: UserId, version: int, *, room_id: RoomId | None = None, session_id: str | None = None
) -> KeyBackupSize:
    """Removes keys, chosen as `list_keys` does, from a backup that is there."""
    row = await conn.fetchrow(DELETE_KEYS, user_id, version, room_id, session_id)
    assert row is not None, "The caller has locked the backup"
    return KeyBackupSize(row["key_count"], row["etag"])
