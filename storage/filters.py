"""Filters that clients have defined.

https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

SELECT_FILTER_BY_HASH: Final = "SELECT filter_id FROM filters WHERE user_id = $1 AND definition_hash = $2"


async def find_filter_id(conn: Connection, *, user_id: UserId, definition_hash: bytes) -> int | None:
    """The id of a filter that the user has defined before."""
    filter_id: int | None = await conn.fetchval(SELECT_FILTER_BY_HASH, user_id, definition_hash)
    return filter_id


# The oldest definitions make room for the newest.
INSERT_FILTER: Final = """
    WITH newest AS (SELECT coalesce(max(filter_id) + 1, 0) AS filter_id FROM filters WHERE user_id = $1),
    gone AS (DELETE FROM filters USING newest WHERE filters.user_id = $1 AND filters.filter_id <= newest.filter_id - $4)
    INSERT INTO filters (user_id, filter_id, definition_hash, definition)
    SELECT $1, newest.filter_id, $2, $3 FROM newest
    RETURNING filter_id
"""


async def insert_filter(
    conn: Connection, *, user_id: UserId, definition_hash: bytes, definition: str, kept: int
) -> int:
    """Stores a filter; its id. Of the user's filters the newest `kept` stay.

    Raises:
        UniqueViolation: another request has stored one at this moment.
    """
    filter_id: int = await conn.fetchval(INSERT_FILTER, user_id, definition_hash, definition, kept)
    return filter_id


SELECT_FILTER: Final = "SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2"


async def find_definition(conn: Connection, *, user_id: UserId, filter_id: int) -> str | None:
    """A filter, as JSON."""
    definition: str | None = await conn.fetchval(SELECT_FILTER, user_id, filter_id)
    return definition
