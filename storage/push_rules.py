"""The push rules of users who have changed something, as JSON that `homeserver/core/push_rules` makes and reads.

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from homeserver.core.ids import UserId
from storage.database import Connection

SELECT_PUSH_RULES: Final = "SELECT user_id, rules FROM push_rules WHERE user_id = ANY ($1::text[]) AND NOT is_default"


async def list_push_rules(conn: Connection, user_ids: Collection[str]) -> Mapping[UserId, str]:
    """The rules of those of some users who have changed something."""
    rows = await conn.fetch(SELECT_PUSH_RULES, list(user_ids))
    return {UserId(row["user_id"]): row["rules"] for row in rows}


@dataclass(frozen=True, slots=True)
class PushRulesRow:
    """A user's rules, and when they changed."""

    rules: str
    position: int


SELECT_PUSH_RULES_OF_USER: Final = "SELECT rules, position FROM push_rules WHERE user_id = $1"


async def find_push_rules(conn: Connection, user_id: UserId) -> PushRulesRow | None:
    """The rules of a user; None if the user has never changed anything."""
    row = await conn.fetchrow(SELECT_PUSH_RULES_OF_USER, user_id)
    return None if row is None else PushRulesRow(row["rules"], row["position"])


INSERT_PUSH_RULES_IF_ABSENT: Final = "INSERT INTO push_rules (user_id, rules) VALUES ($1, '{}') ON CONFLICT DO NOTHING"
LOCK_PUSH_RULES: Final = "SELECT rules FROM push_rules WHERE user_id = $1 FOR NO KEY UPDATE"


async def get_push_rules_locked(conn: Connection, user_id: UserId) -> str:
    """The rules of a local user, which nobody else changes before this transaction ends."""
    await conn.execute(INSERT_PUSH_RULES_IF_ABSENT, user_id)
    rules: str = await conn.fetchval(LOCK_PUSH_RULES, user_id)
    return rules


UPDATE_PUSH_RULES: Final = """
    UPDATE push_rules SET rules = $2, position = stream_position() WHERE user_id = $1 RETURNING position
"""


async def update_push_rules(conn: Connection, user_id: UserId, rules: str) -> int:
    """Replaces the rules of a user who has some; returns their position."""
    position: int = await conn.fetchval(UPDATE_PUSH_RULES, user_id, rules)
    return position


DELETE_PUSH_RULES: Final = "UPDATE push_rules SET rules = '{}', position = stream_position() WHERE user_id = $1"


async def delete_push_rules(conn: Connection, user_id: UserId) -> None:
    """Gives a user the default rules again."""
    await conn.execute(DELETE_PUSH_RULES, user_id)


SELECT_CHANGED_PUSH_RULES: Final = "SELECT user_id FROM push_rules WHERE position >= $1 AND position < $2"


async def list_users_with_changed_rules(conn: Connection, *, since: int, upto: int) -> list[UserId]:
    """The users whose rules changed from `since` on and before `upto`."""
    return [UserId(row["user_id"]) for row in await conn.fetch(SELECT_CHANGED_PUSH_RULES, since, upto)]


# For the hub's tick: whom to wake for the rows between two positions.
SELECT_PUSH_RULE_KEYS: Final = """
    SELECT kind || user_id AS key, position
    FROM push_rules, (VALUES ('user:'), ('push_rules:')) AS kinds (kind)
    WHERE position >= $1 AND position < $2 LIMIT $3
"""
