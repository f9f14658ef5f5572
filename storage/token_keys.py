"""The keys that sign access tokens."""

from dataclasses import dataclass, field
from typing import Final

from storage.database import Connection


@dataclass(frozen=True, slots=True)
class TokenKeyRow:
    """A signing key: the seed of an Ed25519 key, and when it was made (milliseconds since the epoch)."""

    key_id: str
    private_key: bytes = field(repr=False)
    created_ts: int


SELECT_TOKEN_KEYS: Final = "SELECT key_id, private_key, created_ts FROM token_keys ORDER BY created_ts DESC, key_id"


async def list_token_keys(conn: Connection) -> list[TokenKeyRow]:
    """All keys, the newest first."""
    return [
        TokenKeyRow(key_id=row["key_id"], private_key=row["private_key"], created_ts=row["created_ts"])
        for row in await conn.fetch(SELECT_TOKEN_KEYS)
    ]


LOCK_TOKEN_KEYS: Final = "SELECT pg_advisory_xact_lock(hashtext('heliograph.token_keys'))"


async def lock_token_keys(conn: Connection) -> None:
    """Lets no other process add a key before this transaction ends."""
    await conn.execute(LOCK_TOKEN_KEYS)


INSERT_TOKEN_KEY: Final = "INSERT INTO token_keys (key_id, private_key, created_ts) VALUES ($1, $2, $3)"


async def insert_token_key(conn: Connection, key: TokenKeyRow) -> None:
    """Adds a key."""
    await conn.execute(INSERT_TOKEN_KEY, key.key_id, key.private_key, key.created_ts)


DELETE_TOKEN_KEYS: Final = "DELETE FROM token_keys WHERE created_ts < $1"


async def delete_token_keys(conn: Connection, *, created_before_ts: int) -> None:
    """Removes old keys: what they have signed is no longer accepted."""
    await conn.execute(DELETE_TOKEN_KEYS, created_before_ts)
