"""Cross-signing keys of users: master, self-signing and user-signing.

https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection


@dataclass(frozen=True, slots=True)
class CrossSigningRow:
    """A cross-signing key; `key` is the JSON object that the user has uploaded."""

    user_id: UserId
    usage: str
    public_key: str
    key: str


SELECT_CROSS_SIGNING_KEYS: Final = """
    SELECT user_id, usage, public_key, key FROM cross_signing_keys WHERE user_id = ANY ($1::text[])
    ORDER BY user_id, usage
"""


async def list_cross_signing_keys(conn: Connection, user_ids: Collection[UserId]) -> list[CrossSigningRow]:
    """All cross-signing keys of users."""
    rows = await conn.fetch(SELECT_CROSS_SIGNING_KEYS, list(user_ids))
    return [CrossSigningRow(UserId(row["user_id"]), row["usage"], row["public_key"], row["key"]) for row in rows]


UPSERT_CROSS_SIGNING_KEYS: Final = """
    INSERT INTO cross_signing_keys (user_id, usage, public_key, key)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS given (user_id, usage, public_key, key)
    ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, key = excluded.key
"""


async def upsert_cross_signing_keys(conn: Connection, keys: Sequence[CrossSigningRow]) -> None:
    """Stores cross-signing keys, each usage of a user at most once."""
    await conn.execute(
        UPSERT_CROSS_SIGNING_KEYS,
        [key.user_id for key in keys],
        [key.usage for key in keys],
        [key.public_key for key in keys],
        [key.key for key in keys],
    )


DELETE_CROSS_SIGNING_KEYS: Final = "DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = ANY ($2::text[])"


async def delete_cross_signing_keys(conn: Connection, user_id: UserId, usages: Collection[str]) -> None:
    """Removes cross-signing keys of a user."""
    await conn.execute(DELETE_CROSS_SIGNING_KEYS, user_id, list(usages))


SELECT_IS_PUBLIC_KEY: Final = "SELECT EXISTS (SELECT FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2)"


async def is_cross_signing_key(conn: Connection, user_id: UserId, text: str) -> bool:
    """Whether a text is one of the user's cross-signing keys in base64."""
    return bool(await conn.fetchval(SELECT_IS_PUBLIC_KEY, user_id, text))


LOCK_USER: Final = "SELECT user_id FROM users WHERE user_id = $1 FOR NO KEY UPDATE"


async def lock_keys_of_user(conn: Connection, user_id: UserId) -> None:
    """Keeps others from changing the user's keys until the transaction ends."""
    await conn.execute(LOCK_USER, user_id)
