"""How far each follower of the streams has come."""

from typing import Final

from storage.database import Connection

INSERT_FOLLOWER_POSITION: Final = """
    INSERT INTO follower_positions (name, position) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING
"""
SELECT_FOLLOWER_POSITION: Final = "SELECT position FROM follower_positions WHERE name = $1"


async def get_follower_position(conn: Connection, name: str, *, start: int) -> int:
    """The position before which the follower has handled everything; a new follower begins at `start`."""
    position = await conn.fetchval(SELECT_FOLLOWER_POSITION, name)
    if position is None:
        await conn.execute(INSERT_FOLLOWER_POSITION, name, start)
        position = await conn.fetchval(SELECT_FOLLOWER_POSITION, name)
    return int(position)


ADVANCE_FOLLOWER: Final = "UPDATE follower_positions SET position = $3 WHERE name = $1 AND position = $2"


async def advance_follower(conn: Connection, name: str, *, since: int, upto: int) -> bool:
    """Saves that everything before `upto` has been handled; False if the position is no longer `since`.

    Then another process has taken over: what belongs to the same transaction must be rolled back.
    """
    return bool(await conn.execute(ADVANCE_FOLLOWER, name, since, upto) == "UPDATE 1")
