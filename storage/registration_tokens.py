"""Tokens that allow to register.

https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
"""

from dataclasses import dataclass
from typing import Final

from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class RegistrationTokenRow:
    """A token, how often it may be and was used, and how many registrations with it are under way."""

    token: str
    uses_allowed: int | None
    pending: int
    completed: int
    expires_ts: int | None

    def usable(self, now_ms: int) -> bool:
        """Whether somebody may begin to register with it."""
        unexpired = self.expires_ts is None or self.expires_ts > now_ms
        return unexpired and (self.uses_allowed is None or self.pending + self.completed < self.uses_allowed)


def _token(row: Row) -> RegistrationTokenRow:
    return RegistrationTokenRow(
        token=row["token"],
        uses_allowed=row["uses_allowed"],
        pending=row["pending"],
        completed=row["completed"],
        expires_ts=row["expires_ts"],
    )


SELECT_REGISTRATION_TOKENS: Final = """
    SELECT t.token, t.uses_allowed, t.completed, t.expires_ts,
        (SELECT count(*) FROM uia_sessions u WHERE u.registration_token = t.token AND u.registered_user_id IS NULL
            AND u.expires_ts > $2) AS pending
    FROM registration_tokens t
    WHERE $1::text IS NULL OR t.token = $1
    ORDER BY t.token
"""


async def list_registration_tokens(conn: Connection, *, now_ms: int) -> list[RegistrationTokenRow]:
    """All tokens."""
    return [_token(row) for row in await conn.fetch(SELECT_REGISTRATION_TOKENS, None, now_ms)]


async def find_registration_token(conn: Connection, token: str, *, now_ms: int) -> RegistrationTokenRow | None:
    """A token."""
    row = await conn.fetchrow(SELECT_REGISTRATION_TOKENS, token, now_ms)
    return _token(row) if row is not None else None


INSERT_REGISTRATION_TOKEN: Final = """
    INSERT INTO registration_tokens (token, uses_allowed, expires_ts) VALUES ($1, $2, $3)
    ON CONFLICT (token) DO NOTHING RETURNING true
"""


async def insert_registration_token(
    conn: Connection, token: str, *, uses_allowed: int | None, expires_ts: int | None
) -> bool:
    """Makes a token; False says that there is one of that name."""
    return bool(await conn.fetchval(INSERT_REGISTRATION_TOKEN, token, uses_allowed, expires_ts))


UPDATE_REGISTRATION_TOKEN: Final = """
    UPDATE registration_tokens SET uses_allowed = $2, expires_ts = $3 WHERE token = $1
"""


async def update_registration_token(
    conn: Connection, token: str, *, uses_allowed: int | None, expires_ts: int | None
) -> None:
    """Changes how often and how long a token may be used."""
    await conn.execute(UPDATE_REGISTRATION_TOKEN, token, uses_allowed, expires_ts)


UPDATE_REGISTRATION_TOKEN_USED: Final = """
    UPDATE registration_tokens SET completed = completed + 1
    WHERE token = $1 AND (uses_allowed IS NULL OR completed < uses_allowed)
    RETURNING true
"""


async def use_registration_token(conn: Connection, token: str) -> bool:
    """Counts an account that was made; False if the token does not allow it (any more)."""
    return bool(await conn.fetchval(UPDATE_REGISTRATION_TOKEN_USED, token))


DELETE_REGISTRATION_TOKEN: Final = "DELETE FROM registration_tokens WHERE token = $1 RETURNING true"


async def delete_registration_token(conn: Connection, token: str) -> bool:
    """Removes a token; False if there was none."""
    return bool(await conn.fetchval(DELETE_REGISTRATION_TOKEN, token))
