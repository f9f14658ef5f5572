"""Short-lived secrets, hashed, each good for one use: tokens for `m.login.token` and nonces of registration.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token
"""

from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

# Expired rows are swept by whoever adds one, a bounded number at a time and without waiting for others who do the same.
INSERT_LOGIN_TOKEN: Final = """
    WITH swept AS (
        DELETE FROM login_tokens WHERE token_hash IN
            (SELECT token_hash FROM login_tokens WHERE expires_ts <= $4 LIMIT 100 FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)
"""


async def insert_login_token(
    conn: Connection, token_hash: bytes, *, user_id: UserId, expires_ts: int, now_ms: int
) -> None:
    """Stores a login token."""
    await conn.execute(INSERT_LOGIN_TOKEN, token_hash, user_id, expires_ts, now_ms)


DELETE_LOGIN_TOKEN: Final = "DELETE FROM login_tokens WHERE token_hash = $1 RETURNING user_id, expires_ts"


async def take_login_token(conn: Connection, token_hash: bytes, *, now_ms: int) -> UserId | None:
    """Uses a login token up; whom it logs in, or None if it is unknown or has expired."""
    row = await conn.fetchrow(DELETE_LOGIN_TOKEN, token_hash)
    return UserId(row["user_id"]) if row is not None and row["expires_ts"] > now_ms else None


DELETE_LOGIN_TOKENS_OF_USER: Final = "DELETE FROM login_tokens WHERE user_id = $1"


async def delete_login_tokens(conn: Connection, user_id: UserId) -> None:
    """Removes all login tokens of a user."""
    await conn.execute(DELETE_LOGIN_TOKENS_OF_USER, user_id)


INSERT_NONCE: Final = """
    WITH swept AS (
        DELETE FROM registration_nonces WHERE nonce_hash IN
            (SELECT nonce_hash FROM registration_nonces WHERE expires_ts <= $3 LIMIT 100 FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO registration_nonces (nonce_hash, expires_ts) VALUES ($1, $2)
"""


async def insert_nonce(conn: Connection, nonce_hash: bytes, *, expires_ts: int, now_ms: int) -> None:
    """Stores a nonce."""
    await conn.execute(INSERT_NONCE, nonce_hash, expires_ts, now_ms)


DELETE_NONCE: Final = "DELETE FROM registration_nonces WHERE nonce_hash = $1 RETURNING expires_ts"


async def take_nonce(conn: Connection, nonce_hash: bytes, *, now_ms: int) -> bool:
    """Uses a nonce up; False if it is unknown or has expired."""
    expires_ts: int | None = await conn.fetchval(DELETE_NONCE, nonce_hash)
    return expires_ts is not None and expires_ts > now_ms
