"""User-interactive authentications in progress; their identifiers are stored hashed.

https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class UiaSessionRow:
    """A session: what it was begun for, and how far it has come."""

    session_hash: bytes
    operation: str
    user_id: UserId | None
    parameters_hash: bytes
    completed: tuple[str, ...]
    authenticated_user_id: UserId | None
    registration_token: str | None
    registration: str | None = field(repr=False)
    registered_user_id: UserId | None
    expires_ts: int


def _optional_user_id(text: str | None) -> UserId | None:
    return UserId(text) if text is not None else None


def _session(row: Row) -> UiaSessionRow:
    return UiaSessionRow(
        session_hash=row["session_hash"],
        operation=row["operation"],
        user_id=_optional_user_id(row["user_id"]),
        parameters_hash=row["parameters_hash"],
        completed=tuple(row["completed"]),
        authenticated_user_id=_optional_user_id(row["authenticated_user_id"]),
        registration_token=row["registration_token"],
        registration=row["registration"],
        registered_user_id=_optional_user_id(row["registered_user_id"]),
        expires_ts=row["expires_ts"],
    )


INSERT_UIA_SESSION: Final = """
    WITH swept AS (
        DELETE FROM uia_sessions WHERE session_hash IN
            (SELECT session_hash FROM uia_sessions WHERE expires_ts <= $6 LIMIT 100 FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO uia_sessions (session_hash, operation, user_id, parameters_hash, expires_ts) VALUES ($1, $2, $3, $4, $5)
"""


async def insert_uia_session(
    conn: Connection,
    session_hash: bytes,
    *,
    operation: str,
    user_id: UserId | None,
    parameters_hash: bytes,
    expires_ts: int,
    now_ms: int,
) -> None:
    """Begins a session."""
    await conn.execute(INSERT_UIA_SESSION, session_hash, operation, user_id, parameters_hash, expires_ts, now_ms)


SELECT_UIA_SESSION: Final = """
    SELECT session_hash, operation, user_id, parameters_hash, completed, authenticated_user_id, registration_token,
        registration, registered_user_id, expires_ts
    FROM uia_sessions WHERE session_hash = $1 AND expires_ts > $2
"""


async def find_uia_session(conn: Connection, session_hash: bytes, *, now_ms: int) -> UiaSessionRow | None:
    """A session that has not expired."""
    row = await conn.fetchrow(SELECT_UIA_SESSION, session_hash, now_ms)
    return _session(row) if row is not None else None


LOCK_UIA_SESSION: Final = """
    SELECT session_hash, operation, user_id, parameters_hash, completed, authenticated_user_id, registration_token,
        registration, registered_user_id, expires_ts
    FROM uia_sessions WHERE session_hash = $1 AND expires_ts > $2 FOR NO KEY UPDATE
"""


async def find_uia_session_locked(conn: Connection, session_hash: bytes, *, now_ms: int) -> UiaSessionRow | None:
    """A session that has not expired, which nobody else changes before this transaction ends."""
    row = await conn.fetchrow(LOCK_UIA_SESSION, session_hash, now_ms)
    return _session(row) if row is not None else None


UPDATE_UIA_COMPLETED: Final = """
    UPDATE uia_sessions
    SET completed = CASE WHEN $2 = ANY(completed) THEN completed ELSE completed || $2::text END,
        authenticated_user_id = coalesce($3, authenticated_user_id),
        registration_token = coalesce($4, registration_token)
    WHERE session_hash = $1
    RETURNING completed
"""


async def complete_stage(
    conn: Connection,
    session_hash: bytes,
    stage: str,
    *,
    authenticated_user_id: UserId | None = None,
    registration_token: str | None = None,
) -> tuple[str, ...]:
    """Notes that a stage was passed, and what it showed; all stages that were passed (none: the session is gone)."""
    completed = await conn.fetchval(
        UPDATE_UIA_COMPLETED, session_hash, stage, authenticated_user_id, registration_token
    )
    return tuple(completed or ())


UPDATE_UIA_REGISTRATION: Final = "UPDATE uia_sessions SET registration = $2 WHERE session_hash = $1"


async def update_registration(conn: Connection, session_hash: bytes, registration: str) -> None:
    """Notes what a registering client asked for, as JSON."""
    await conn.execute(UPDATE_UIA_REGISTRATION, session_hash, registration)


UPDATE_UIA_REGISTERED: Final = (
    "UPDATE uia_sessions SET registered_user_id = $2, expires_ts = $3 WHERE session_hash = $1"
)


async def update_registered(conn: Connection, session_hash: bytes, *, user_id: UserId, expires_ts: int) -> None:
    """Notes which account a registration made."""
    await conn.execute(UPDATE_UIA_REGISTERED, session_hash, user_id, expires_ts)


DELETE_UIA_SESSION: Final = "DELETE FROM uia_sessions WHERE session_hash = $1 RETURNING true"


async def delete_uia_session(conn: Connection, session_hash: bytes) -> bool:
    """Ends a session; False if it has been ended already."""
    return bool(await conn.fetchval(DELETE_UIA_SESSION, session_hash))


DELETE_UIA_SESSIONS_OF_USER: Final = "DELETE FROM uia_sessions WHERE user_id = $1"


async def delete_uia_sessions(conn: Connection, user_id: UserId) -> None:
    """Ends all sessions of a user."""
    await conn.execute(DELETE_UIA_SESSIONS_OF_USER, user_id)
