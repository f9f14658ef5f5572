"""What clients keep for their users, for the whole account or for one room, and the users that a user ignores.

https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import RoomId, UserId
from storage.database import Connection, Row


@dataclass(frozen=True, slots=True)
class AccountDataRow:
    """One piece of account data; `room_id` is None for the account's own, `content` is a JSON object as text."""

    room_id: RoomId | None
    type: str
    content: str
    position: int


def _account_data(row: Row) -> AccountDataRow:
    return AccountDataRow(
        room_id=RoomId(row["room_id"]) if row["room_id"] else None,
        type=row["type"],
        content=row["content"],
        position=row["position"],
    )


SELECT_ACCOUNT_DATA: Final = "SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3"


async def find_content(conn: Connection, *, user_id: UserId, room_id: RoomId | None, type: str) -> str | None:  # noqa: A002
    """The content of one piece of account data, as JSON."""
    content: str | None = await conn.fetchval(SELECT_ACCOUNT_DATA, user_id, room_id or "", type)
    return content


SELECT_CONTENTS: Final = """
    SELECT user_id, content FROM account_data WHERE user_id = ANY ($1::text[]) AND room_id = '' AND type = $2
"""


async def list_contents(conn: Connection, *, user_ids: Sequence[str], type: str) -> dict[UserId, str]:  # noqa: A002
    """One piece of account data that is not about a room, as JSON, of each user who has it."""
    rows = await conn.fetch(SELECT_CONTENTS, list(user_ids), type)
    return {UserId(row["user_id"]): row["content"] for row in rows}


INSERT_ACCOUNT_DATA_IF_ABSENT: Final = """
    INSERT INTO account_data (user_id, room_id, type, content) VALUES ($1, $2, $3, '{}') ON CONFLICT DO NOTHING
"""

LOCK_ACCOUNT_DATA: Final = """
    SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3 FOR NO KEY UPDATE
"""


async def get_content_locked(conn: Connection, *, user_id: UserId, room_id: RoomId | None, type: str) -> str:  # noqa: A002
    """The content of one piece of account data, which is made (as `{}`) if it is absent.

    Nobody else changes it before this transaction ends.
    """
    await conn.execute(INSERT_ACCOUNT_DATA_IF_ABSENT, user_id, room_id or "", type)
    content: str = await conn.fetchval(LOCK_ACCOUNT_DATA, user_id, room_id or "", type)
    return content


UPSERT_ACCOUNT_DATA: Final = """
    INSERT INTO account_data (user_id, room_id, type, content) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content, position = stream_position()
    RETURNING position
"""


async def upsert_account_data(
    conn: Connection,
    *,
    user_id: UserId,
    room_id: RoomId | None,
    type: str,  # noqa: A002
    content: str,
) -> int:
    """Stores one piece of account data; its position."""
    position: int = await conn.fetchval(UPSERT_ACCOUNT_DATA, user_id, room_id or "", type, content)
    return position


SELECT_CHANGED: Final = """
    SELECT room_id, type, content, position FROM account_data
    WHERE user_id = $1 AND position >= $2 AND position < $3
    ORDER BY position, room_id, type
"""


async def list_changed(conn: Connection, user_id: UserId, *, since: int, upto: int) -> list[AccountDataRow]:
    """Account data of a user, of rooms too, that changed from `since` on and before `upto`; all of it from 0 on."""
    return [_account_data(row) for row in await conn.fetch(SELECT_CHANGED, user_id, since, upto)]


SELECT_OF_ROOMS: Final = """
    SELECT room_id, type, content, position FROM account_data
    WHERE user_id = $1 AND room_id = ANY($2) AND position < $3
    ORDER BY room_id, type
"""


async def list_of_rooms(
    conn: Connection, user_id: UserId, *, room_ids: Sequence[str], upto: int
) -> list[AccountDataRow]:
    """A user's account data of these rooms, as far as it was there before `upto`."""
    return [_account_data(row) for row in await conn.fetch(SELECT_OF_ROOMS, user_id, list(room_ids), upto)]


DELETE_ACCOUNT_DATA: Final = "DELETE FROM account_data WHERE user_id = $1"
DELETE_ALL_IGNORED_USERS: Final = "DELETE FROM ignored_users WHERE user_id = $1"


async def delete_account_data(conn: Connection, user_id: UserId) -> None:
    """Removes all account data of a user."""
    await conn.execute(DELETE_ALL_IGNORED_USERS, user_id)
    await conn.execute(DELETE_ACCOUNT_DATA, user_id)


SELECT_IGNORED_USERS: Final = "SELECT ignored_user_id FROM ignored_users WHERE user_id = $1"


async def ignored_users(conn: Connection, user_id: UserId) -> frozenset[UserId]:
    """Whom a user ignores."""
    return frozenset(UserId(row["ignored_user_id"]) for row in await conn.fetch(SELECT_IGNORED_USERS, user_id))


SELECT_IGNORING_USERS: Final = """
    SELECT user_id FROM ignored_users WHERE ignored_user_id = $1 AND user_id = ANY($2)
"""


async def ignoring_users(conn: Connection, *, ignored: UserId, among: Collection[str]) -> frozenset[UserId]:
    """Which of the users ignore somebody."""
    rows = await conn.fetch(SELECT_IGNORING_USERS, ignored, list(among))
    return frozenset(UserId(row["user_id"]) for row in rows)


REPLACE_IGNORED_USERS: Final = """
    WITH gone AS (DELETE FROM ignored_users WHERE user_id = $1 AND ignored_user_id <> ALL($2::text[]))
    INSERT INTO ignored_users (user_id, ignored_user_id) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING
"""


async def replace_ignored_users(conn: Connection, user_id: UserId, ignored: Collection[str]) -> None:
    """Says anew whom a user ignores."""
    await conn.execute(REPLACE_IGNORED_USERS, user_id, sorted(ignored))


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_ACCOUNT_DATA_KEYS: Final = """
    SELECT 'user:' || user_id AS key, max(position) AS position FROM account_data
    WHERE position >= $1 AND position < $2 GROUP BY user_id LIMIT $3
"""
