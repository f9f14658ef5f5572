"""The lists of push actions that events have by default, as integers.

Users cannot add to them: only what the server's default rules say is kept here.
"""

from collections.abc import Mapping
from typing import Final

from storage.database import Connection

SELECT_PUSH_ACTIONS: Final = "SELECT actions_id, actions FROM push_actions"


async def list_push_actions(conn: Connection) -> Mapping[str, int]:
    """All lists, as canonical JSON, with their numbers."""
    return {row["actions"]: row["actions_id"] for row in await conn.fetch(SELECT_PUSH_ACTIONS)}


# Whoever adds the same at the same time fails and finds it added.
INSERT_PUSH_ACTIONS: Final = """
    INSERT INTO push_actions (actions_id, actions)
    SELECT CASE WHEN $2 THEN least(min(actions_id), 0) - 1 ELSE greatest(max(actions_id), 0) + 1 END, $1
    FROM push_actions
    ON CONFLICT DO NOTHING
"""


async def insert_push_actions(conn: Connection, actions: str, *, highlight: bool) -> None:
    """Adds a list, unless it, or another at the same moment, is being added; so look afterwards."""
    await conn.execute(INSERT_PUSH_ACTIONS, actions, highlight)
