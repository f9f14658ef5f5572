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


# A key signed nothing once its successor had been known everywhere, and what is stored of the tokens tells their age.
DELETE_UNNEEDED_KEYS: Final = """
    DELETE FROM token_keys k USING (
        SELECT key_id, lead(created_ts) OVER (ORDER BY created_ts, key_id DESC) + $2 AS retired_ts FROM token_keys
    ) AS old
    WHERE k.key_id = old.key_id AND old.retired_ts < $1
        AND NOT EXISTS (SELECT FROM token_pairs p WHERE p.created_ts < old.retired_ts)
    RETURNING k.key_id
"""


async def delete_unneeded_keys(conn: Connection, *, now_ms: int, overlap_ms: int) -> list[str]:
    """Removes the keys that have a successor and may have signed no token that is left; their ids.

    For `overlap_ms` after a key was made, tokens may still have been signed with the older one.
    """
    return [row["key_id"] for row in await conn.fetch(DELETE_UNNEEDED_KEYS, now_ms, overlap_ms)]
