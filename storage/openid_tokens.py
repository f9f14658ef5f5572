"""Tokens by which a third party may ask who somebody is, hashed.

https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

INSERT_OPENID_TOKEN: Final = """
    WITH swept AS (
        DELETE FROM openid_tokens WHERE token_hash IN
            (SELECT token_hash FROM openid_tokens WHERE expires_ts <= $4 LIMIT 100 FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)
"""


async def insert_openid_token(
    conn: Connection, token_hash: bytes, *, user_id: UserId, expires_ts: int, now_ms: int
) -> None:
    """Stores a token."""
    await conn.execute(INSERT_OPENID_TOKEN, token_hash, user_id, expires_ts, now_ms)


SELECT_OPENID_USER: Final = """
    SELECT t.user_id FROM openid_tokens t JOIN users u USING (user_id)
    WHERE t.token_hash = $1 AND t.expires_ts > $2 AND u.deactivated_ts IS NULL AND NOT u.locked
"""


async def find_openid_user(conn: Connection, token_hash: bytes, *, now_ms: int) -> UserId | None:
    """Whom a token names, unless it has expired or the account has ended or is locked."""
    user_id: str | None = await conn.fetchval(SELECT_OPENID_USER, token_hash, now_ms)
    return UserId(user_id) if user_id is not None else None


DELETE_OPENID_TOKENS_OF_USER: Final = "DELETE FROM openid_tokens WHERE user_id = $1"


async def delete_openid_tokens(conn: Connection, user_id: UserId) -> None:
    """Removes all tokens of a user."""
    await conn.execute(DELETE_OPENID_TOKENS_OF_USER, user_id)
