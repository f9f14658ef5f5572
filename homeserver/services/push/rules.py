"""The push rules of users: reading and changing them.

https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.ids import RoomId, UserId
from homeserver.core.push_rules.evaluation import DEFAULT_RULE_SET
from homeserver.core.push_rules.rule import Actions, PushRule, PushRuleKind
from homeserver.core.push_rules.rule_set import RuleSet
from homeserver.services.push.room_rules import with_rules_of_room
from homeserver.services.push.rule_sets import PUSH_RULES_KEY, RuleSets
from storage.bus.base import Bus
from storage.database import Connection, Database
from storage.push_rules import find_push_rules, get_push_rules_locked, update_push_rules


class PushRules:
    """The rules of this server's users."""

    def __init__(self, *, db: Database, bus: Bus, rule_sets: RuleSets) -> None:
        self._db = db
        self._bus = bus
        self._rule_sets = rule_sets

    async def get(self, user_id: UserId) -> RuleSet:
        """All rules of a user."""
        async with self._db.connection() as conn:
            row = await find_push_rules(conn, user_id)
        return DEFAULT_RULE_SET if row is None else _parse(row.rules)

    async def content(self, user_id: UserId) -> Mapping[str, Any]:
        """The content of the account data event `m.push_rules`."""
        return (await self.get(user_id)).to_json(user_id)

    async def changed(self, conn: Connection, user_id: UserId, *, since: int, upto: int) -> Mapping[str, Any] | None:
        """The content of `m.push_rules` if it changed from `since` on and before `upto`, else None.

        With `since` 0 there always is one, for users who have changed nothing have rules too.
        """
        row = await find_push_rules(conn, user_id)
        if since > 0 and (row is None or not since <= row.position < upto):
            return None
        return (DEFAULT_RULE_SET if row is None else _parse(row.rules)).to_json(user_id)

    async def put_rule(
        self, user_id: UserId, rule: PushRule, *, before: str | None = None, after: str | None = None
    ) -> None:
        """Adds a rule, or updates the one of the same name; see `RuleSet.with_rule`.

        Raises:
            Unknown: `before` or `after` is not the name of another rule that the user made.
            InvalidParam: there are too many rules.
            TooLarge: the rules have become too large.
        """
        await self._change(user_id, lambda rules: rules.with_rule(rule, before=before, after=after))

    async def delete_rule(self, user_id: UserId, kind: PushRuleKind, rule_id: str) -> None:
        """Removes a rule.

        Raises:
            NotFound: the user has made no such rule; default rules cannot be removed.
        """
        await self._change(user_id, lambda rules: rules.without_rule(kind, rule_id))

    async def set_enabled(self, user_id: UserId, kind: PushRuleKind, rule_id: str, *, enabled: bool) -> None:
        """Enables or disables a rule.

        Raises:
            NotFound: there is no such rule.
        """
        await self._change(user_id, lambda rules: rules.with_enabled(kind, rule_id, enabled=enabled))

    async def set_actions(self, user_id: UserId, kind: PushRuleKind, rule_id: str, actions: Actions) -> None:
        """Gives a rule other actions.

        Raises:
            NotFound: there is no such rule.
            TooLarge: the rules have become too large.
        """
        await self._change(user_id, lambda rules: rules.with_actions(kind, rule_id, actions))

    async def copy_room_rules(self, user_id: UserId, *, old_room_id: RoomId, new_room_id: RoomId) -> None:
        """Gives a local user the rules about a room also for the room that replaces it, as the user goes there."""
        async with self._db.connection() as conn:
            if await find_push_rules(conn, user_id) is None:
                return
        await self._change(
            user_id,
            lambda rules: with_rules_of_room(rules, old_room_id=old_room_id, new_room_id=new_room_id),
        )

    async def _change(self, user_id: UserId, change: Callable[[RuleSet], RuleSet]) -> None:
        """Replaces a user's rules; what changes nothing is not written."""
        async with self._db.transaction() as conn:
            stored = await get_push_rules_locked(conn, user_id)
            encoded = encode_canonical(change(_parse(stored)).to_storage()).decode()
            if encoded == stored:
                return
            position = await update_push_rules(conn, user_id, encoded)
        self._rule_sets.discard([user_id])
        await self._bus.wake({f"user:{user_id}", f"{PUSH_RULES_KEY}{user_id}"}, position)


def _parse(rules: str) -> RuleSet:
    return RuleSet.from_storage(orjson.loads(rules))
