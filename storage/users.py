"""Local accounts.

https://spec.matrix.org/v1.19/client-server-api/#account-registration
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class UserRow:
    """An account, as `users` holds it; times are milliseconds since the epoch."""

    user_id: UserId
    password_hash: str | None = field(repr=False)
    is_guest: bool
    is_admin: bool
    user_type: str | None
    appservice_id: str | None
    created_ts: int
    locked: bool
    suspended: bool
    deactivated_ts: int | None
    erased: bool

    @property
    def deactivated(self) -> bool:
        """Whether the account has ended."""
        return self.deactivated_ts is not None


def _user(row: Row) -> UserRow:
    return UserRow(
        user_id=UserId(row["user_id"]),
        password_hash=row["password_hash"],
        is_guest=row["is_guest"],
        is_admin=row["is_admin"],
        user_type=row["user_type"],
        appservice_id=row["appservice_id"],
        created_ts=row["created_ts"],
        locked=row["locked"],
        suspended=row["suspended"],
        deactivated_ts=row["deactivated_ts"],
        erased=row["erased"],
    )


INSERT_USER: Final = """
    INSERT INTO users (user_id, password_hash, is_guest, is_admin, user_type, appservice_id, created_ts, accepted_terms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (user_id) DO NOTHING
    RETURNING true
"""


async def insert_user(
    conn: Connection,
    user_id: UserId,
    *,
    password_hash: str | None,
    created_ts: int,
    is_guest: bool = False,
    is_admin: bool = False,
    user_type: str | None = None,
    appservice_id: str | None = None,
    accepted_terms: str | None = None,
) -> bool:
    """Makes an account; False says that the name is taken."""
    return bool(
        await conn.fetchval(
            INSERT_USER,
            user_id,
            password_hash,
            is_guest,
            is_admin,
            user_type,
            appservice_id,
            created_ts,
            accepted_terms,
        )
    )


SELECT_USER: Final = """
    SELECT user_id, password_hash, is_guest, is_admin, user_type, appservice_id, created_ts, locked, suspended,
        deactivated_ts, erased
    FROM users WHERE user_id = $1
"""


async def find_user(conn: Connection, user_id: str) -> UserRow | None:
    """An account."""
    row = await conn.fetchrow(SELECT_USER, user_id)
    return _user(row) if row is not None else None


LOCK_USER: Final = """
    SELECT user_id, password_hash, is_guest, is_admin, user_type, appservice_id, created_ts, locked, suspended,
        deactivated_ts, erased
    FROM users WHERE user_id = $1 FOR NO KEY UPDATE
"""


async def find_user_locked(conn: Connection, user_id: str) -> UserRow | None:
    """An account, which nobody else changes before this transaction ends."""
    row = await conn.fetchrow(LOCK_USER, user_id)
    return _user(row) if row is not None else None


SELECT_USERS: Final = """
    SELECT user_id, password_hash, is_guest, is_admin, user_type, appservice_id, created_ts, locked, suspended,
        deactivated_ts, erased
    FROM users
    WHERE user_id > $1 AND ($2 OR deactivated_ts IS NULL) AND ($3 OR NOT is_guest)
    ORDER BY user_id LIMIT $4
"""


async def list_users(
    conn: Connection, *, after: str, limit: int, with_deactivated: bool, with_guests: bool
) -> list[UserRow]:
    """Accounts in the order of their ids, from the one behind `after` on."""
    return [_user(row) for row in await conn.fetch(SELECT_USERS, after, with_deactivated, with_guests, limit)]


SELECT_EXISTING: Final = "SELECT user_id FROM users WHERE user_id = ANY($1)"


async def list_existing(conn: Connection, user_ids: Sequence[str]) -> set[str]:
    """Those of the ids that belong to accounts, deactivated ones too."""
    return {row["user_id"] for row in await conn.fetch(SELECT_EXISTING, list(user_ids))}


SELECT_GUEST_NUMBER: Final = "SELECT nextval('guest_numbers')"


async def next_guest_number(conn: Connection) -> int:
    """A number that no guest has had."""
    number: int = await conn.fetchval(SELECT_GUEST_NUMBER)
    return number


UPDATE_PASSWORD_HASH: Final = "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND deactivated_ts IS NULL"


async def update_password_hash(conn: Connection, user_id: UserId, password_hash: str | None) -> None:
    """Gives an account another password, unless it has been deactivated."""
    await conn.execute(UPDATE_PASSWORD_HASH, user_id, password_hash)


REPLACE_PASSWORD_HASH: Final = "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2"


async def replace_password_hash(conn: Connection, user_id: UserId, *, old_hash: str, new_hash: str) -> None:
    """Stores the same password in another form, unless it has been changed meanwhile."""
    await conn.execute(REPLACE_PASSWORD_HASH, user_id, old_hash, new_hash)


UPDATE_ADMIN: Final = "UPDATE users SET is_admin = $2 WHERE user_id = $1"


async def update_admin(conn: Connection, user_id: UserId, *, is_admin: bool) -> None:
    """Makes the user an administrator, or an ordinary one."""
    await conn.execute(UPDATE_ADMIN, user_id, is_admin)


UPDATE_USER_TYPE: Final = "UPDATE users SET user_type = $2 WHERE user_id = $1"


async def update_user_type(conn: Connection, user_id: UserId, user_type: str | None) -> None:
    """Says what kind of account it is."""
    await conn.execute(UPDATE_USER_TYPE, user_id, user_type)


UPDATE_LOCKED: Final = "UPDATE users SET locked = $2 WHERE user_id = $1"


async def update_locked(conn: Connection, user_id: UserId, *, locked: bool) -> None:
    """Locks or unlocks the account."""
    await conn.execute(UPDATE_LOCKED, user_id, locked)


UPDATE_SUSPENDED: Final = "UPDATE users SET suspended = $2 WHERE user_id = $1"


async def update_suspended(conn: Connection, user_id: UserId, *, suspended: bool) -> None:
    """Suspends the account, or ends that."""
    await conn.execute(UPDATE_SUSPENDED, user_id, suspended)


UPDATE_GUEST_TO_USER: Final = """
    UPDATE users SET is_guest = false, password_hash = $2, accepted_terms = $3
    WHERE user_id = $1 AND is_guest AND deactivated_ts IS NULL
    RETURNING true
"""


async def upgrade_guest(
    conn: Connection, user_id: UserId, *, password_hash: str | None, accepted_terms: str | None
) -> bool:
    """Makes a guest an ordinary user; False if it is no guest (any more)."""
    return bool(await conn.fetchval(UPDATE_GUEST_TO_USER, user_id, password_hash, accepted_terms))


DEACTIVATE_USER: Final = """
    UPDATE users SET deactivated_ts = coalesce(deactivated_ts, $2), erased = erased OR $3, password_hash = NULL,
        is_admin = false
    WHERE user_id = $1
"""


async def deactivate_user(conn: Connection, user_id: UserId, *, deactivated_ts: int, erase: bool) -> None:
    """Ends the account; its name stays taken."""
    await conn.execute(DEACTIVATE_USER, user_id, deactivated_ts, erase)


REACTIVATE_USER: Final = """
    UPDATE users SET deactivated_ts = NULL, erased = false, password_hash = $2 WHERE user_id = $1
"""


async def reactivate_user(conn: Connection, user_id: UserId, *, password_hash: str | None) -> None:
    """Gives a deactivated account back to its owner."""
    await conn.execute(REACTIVATE_USER, user_id, password_hash)


SELECT_ERASED: Final = "SELECT user_id FROM users WHERE erased AND user_id = ANY($1)"


async def list_erased(conn: Connection, user_ids: Sequence[str]) -> set[str]:
    """Those of the users who wanted their content erased."""
    return {row["user_id"] for row in await conn.fetch(SELECT_ERASED, list(user_ids))}


SELECT_UNUSED_GUESTS: Final = """
    SELECT u.user_id FROM users u
    WHERE u.is_guest AND u.deactivated_ts IS NULL AND u.created_ts < $1
        AND NOT EXISTS (
            SELECT FROM devices d
            WHERE d.user_id = u.user_id AND greatest(d.created_ts, coalesce(d.last_seen_ts, 0)) >= $1
        )
    ORDER BY u.created_ts
    LIMIT $2
"""


async def list_unused_guests(conn: Connection, *, unused_since_ts: int, limit: int) -> list[UserId]:
    """Guests whose devices have not been seen since a time, in milliseconds, the oldest accounts first."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_UNUSED_GUESTS, unused_since_ts, limit)]


INSERT_PENDING_DEPARTURE: Final = """
    INSERT INTO pending_departures (user_id, requested_ts) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING
"""


async def insert_pending_departure(conn: Connection, user_id: UserId, *, requested_ts: int) -> None:
    """Notes that a deactivated user must leave its rooms."""
    await conn.execute(INSERT_PENDING_DEPARTURE, user_id, requested_ts)


SELECT_PENDING_DEPARTURES: Final = "SELECT user_id FROM pending_departures ORDER BY requested_ts LIMIT $1"


async def list_pending_departures(conn: Connection, *, limit: int) -> list[UserId]:
    """Deactivated users who must still leave rooms, oldest first."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_PENDING_DEPARTURES, limit)]


DELETE_PENDING_DEPARTURE: Final = "DELETE FROM pending_departures WHERE user_id = $1"


async def delete_pending_departure(conn: Connection, user_id: UserId) -> None:
    """Notes that a user has left all rooms, or need not."""
    await conn.execute(DELETE_PENDING_DEPARTURE, user_id)
