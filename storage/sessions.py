"""Sessions of local users and the tokens that were issued for them, hashed.

https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import DeviceId, UserId
from storage.database import Connection

INSERT_SESSION: Final = """
    INSERT INTO sessions (user_id, device_id, created_ts) VALUES ($1, $2, $3) RETURNING session_id
"""


async def insert_session(conn: Connection, *, user_id: UserId, device_id: DeviceId | None, created_ts: int) -> int:
    """Opens a session; its id."""
    session_id: int = await conn.fetchval(INSERT_SESSION, user_id, device_id, created_ts)
    return session_id


DELETE_SESSIONS_OF_DEVICE: Final = """
    DELETE FROM sessions WHERE user_id = $1 AND device_id = $2 RETURNING session_id
"""


async def delete_sessions_of_device(conn: Connection, *, user_id: UserId, device_id: DeviceId) -> None:
    """Ends what was open on a device, which itself stays."""
    await conn.execute(DELETE_SESSIONS_OF_DEVICE, user_id, device_id)


DELETE_SESSION: Final = "DELETE FROM sessions WHERE session_id = $1"


async def delete_session(conn: Connection, session_id: int) -> None:
    """Ends one session."""
    await conn.execute(DELETE_SESSION, session_id)


DELETE_OTHER_SESSIONS: Final = "DELETE FROM sessions WHERE user_id = $1 AND session_id IS DISTINCT FROM $2"


async def delete_all_sessions(conn: Connection, *, user_id: UserId, keep: int | None) -> None:
    """Ends all sessions of a user, also those without a device, but not `keep`."""
    await conn.execute(DELETE_OTHER_SESSIONS, user_id, keep)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What is stored of an access token and, perhaps, its refresh token; times are milliseconds since the epoch."""

    session_id: int
    access_hash: bytes
    access_expires_ts: int | None
    refresh_hash: bytes | None
    refresh_expires_ts: int | None
    created_ts: int
    parent_id: int | None = None


INSERT_PAIR: Final = """
    INSERT INTO token_pairs (session_id, access_hash, access_expires_ts, refresh_hash, refresh_expires_ts, created_ts,
        parent_id, used)
    VALUES ($1, $2, $3, $4, $5, $6, $7::bigint, $7::bigint IS NULL)
    RETURNING pair_id
"""


async def insert_pair(conn: Connection, pair: TokenPair) -> int:
    """Stores newly issued tokens; the pair's id. A session's first pair has no parent to end: it counts as used."""
    pair_id: int = await conn.fetchval(
        INSERT_PAIR,
        pair.session_id,
        pair.access_hash,
        pair.access_expires_ts,
        pair.refresh_hash,
        pair.refresh_expires_ts,
        pair.created_ts,
        pair.parent_id,
    )
    return pair_id


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session with its user's standing, and the pair of tokens that was asked for, if it still exists."""

    session_id: int
    user_id: UserId
    device_id: DeviceId | None
    is_guest: bool
    is_admin: bool
    locked: bool
    suspended: bool
    deactivated: bool
    pair_id: int | None
    access_hash: bytes | None
    access_expires_ts: int | None
    used: bool


SELECT_SESSIONS: Final = """
    SELECT s.session_id, s.user_id, s.device_id, u.is_guest, u.is_admin, u.locked, u.suspended,
        u.deactivated_ts IS NOT NULL AS deactivated, wanted.pair_id AS wanted_pair_id,
        p.pair_id, p.access_hash, p.access_expires_ts, coalesce(p.used, true) AS used
    FROM unnest($1::bigint[], $2::bigint[]) AS wanted(session_id, pair_id)
    JOIN sessions s ON s.session_id = wanted.session_id
    JOIN users u ON u.user_id = s.user_id
    LEFT JOIN token_pairs p ON p.pair_id = wanted.pair_id AND p.session_id = s.session_id
"""


async def list_sessions(
    conn: Connection, *, session_ids: Sequence[int], pair_ids: Sequence[int]
) -> dict[tuple[int, int], SessionRow]:
    """The open ones among sessions, each asked for together with a pair of its tokens, by both ids."""
    rows = await conn.fetch(SELECT_SESSIONS, list(session_ids), list(pair_ids))
    return {
        (row["session_id"], row["wanted_pair_id"]): SessionRow(
            session_id=row["session_id"],
            user_id=UserId(row["user_id"]),
            device_id=DeviceId(row["device_id"]) if row["device_id"] is not None else None,
            is_guest=row["is_guest"],
            is_admin=row["is_admin"],
            locked=row["locked"],
            suspended=row["suspended"],
            deactivated=row["deactivated"],
            pair_id=row["pair_id"],
            access_hash=row["access_hash"],
            access_expires_ts=row["access_expires_ts"],
            used=row["used"],
        )
        for row in rows
    }


UPDATE_FIRST_USE: Final = """
    WITH first_use AS (
        UPDATE token_pairs SET used = true WHERE pair_id = $1 AND NOT used RETURNING parent_id
    )
    UPDATE token_pairs SET superseded_ts = $2
    WHERE pair_id IN (SELECT parent_id FROM first_use) AND superseded_ts IS NULL
"""


async def mark_used(conn: Connection, pair_id: int, *, now_ms: int) -> None:
    """Notes that one of a pair's tokens was presented: from now on its parent's refresh token has had its time."""
    await conn.execute(UPDATE_FIRST_USE, pair_id, now_ms)


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """The pair that a refresh token belongs to, and its session."""

    pair_id: int
    parent_id: int | None
    session_id: int
    user_id: UserId
    device_id: DeviceId | None
    refresh_expires_ts: int | None
    superseded_ts: int | None


SELECT_REFRESH: Final = """
    SELECT p.pair_id, p.parent_id, p.session_id, s.user_id, s.device_id, p.refresh_expires_ts, p.superseded_ts
    FROM token_pairs p JOIN sessions s USING (session_id)
    WHERE p.refresh_hash = $1
    FOR UPDATE
"""


async def find_refresh_locked(conn: Connection, refresh_hash: bytes) -> RefreshRow | None:
    """The pair of a refresh token; no other refresh of the session proceeds before this transaction ends."""
    row = await conn.fetchrow(SELECT_REFRESH, refresh_hash)
    if row is None:
        return None
    return RefreshRow(
        pair_id=row["pair_id"],
        parent_id=row["parent_id"],
        session_id=row["session_id"],
        user_id=UserId(row["user_id"]),
        device_id=DeviceId(row["device_id"]) if row["device_id"] is not None else None,
        refresh_expires_ts=row["refresh_expires_ts"],
        superseded_ts=row["superseded_ts"],
    )


# A pair has had its time when its refresh token was superseded long enough ago and its access token has expired; the
# last one of these is kept, so that a client that went back in time is still told that its session lives. Of pairs that
# were never used, each the answer to another attempt to refresh, the newest few may still be on their way.
DELETE_SPENT_PAIRS: Final = """
    DELETE FROM token_pairs
    WHERE session_id = $1 AND (
        (superseded_ts < $3 AND access_expires_ts < $4 AND pair_id IS DISTINCT FROM $2)
        OR (NOT used AND pair_id NOT IN
            (SELECT pair_id FROM token_pairs WHERE session_id = $1 AND NOT used ORDER BY pair_id DESC LIMIT 5))
    )
"""


async def delete_spent_pairs(
    conn: Connection, refreshed: RefreshRow, *, superseded_before_ts: int, now_ms: int
) -> None:
    """Removes pairs of the session that are of no more use now that `refreshed` has been exchanged."""
    await conn.execute(DELETE_SPENT_PAIRS, refreshed.session_id, refreshed.parent_id, superseded_before_ts, now_ms)
