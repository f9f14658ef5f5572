"""The push rules of users, ready to be evaluated: kept in memory, and dropped when they change.

A change made by another process is seen within moments; events in between meet the rules as they were.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Final

import orjson

from homeserver.core.clock import Clock
from homeserver.core.ids import UserId
from homeserver.core.push_rules.evaluation import DEFAULT_RULE_SET
from homeserver.core.push_rules.rule_set import RuleSet
from homeserver.services.stream.hub import Hub
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.errors import DatabaseError
from storage.push_rules import list_push_rules, list_users_with_changed_rules

logger = logging.getLogger(__name__)

PUSH_RULES_KEY: Final = "push_rules:"
"""What is woken, followed by the user, when the user's rules have changed."""

_IDLE_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0
# What is kept takes in memory, roughly: the default rules, and others by the length of their text.
_BYTES_PER_ENTRY: Final = 200
_BYTES_PER_SET: Final = 8_000
_BYTES_PER_BYTE: Final = 10


class RuleSets:
    """The rule sets of one process."""

    def __init__(self, *, db: Database, size_bytes_max: int = 64 * 1024 * 1024) -> None:
        """Starts with nothing in memory."""
        self._db = db
        self._cache: BoundedCache[UserId, tuple[RuleSet, int]] = BoundedCache(
            "push_rule_sets", weight_max=size_bytes_max, weigh=lambda kept: kept[1], bytes_each=1
        )
        self._changes = 0
        self._users_version = 0

    @property
    def users_version(self) -> int:
        """Another number whenever there may be further users who have changed their rules."""
        return self._users_version

    async def load(self, user_ids: Collection[UserId]) -> Mapping[UserId, RuleSet]:
        """The rules of some users of this server, with one statement for all that is not in memory."""
        found: dict[UserId, RuleSet] = {}
        missing = []
        for user_id in user_ids:
            kept = self._cache.get(user_id)
            if kept is None:
                missing.append(user_id)
            else:
                found[user_id] = kept[0]
        if missing:
            changes = self._changes
            async with self._db.connection() as conn:
                stored = await list_push_rules(conn, missing)
            for user_id in missing:
                rules = stored.get(user_id)
                rule_set, weight = DEFAULT_RULE_SET, _BYTES_PER_ENTRY
                if rules is not None:
                    rule_set = RuleSet.from_storage(orjson.loads(rules))
                    weight = _BYTES_PER_SET + _BYTES_PER_BYTE * len(rules)
                found[user_id] = rule_set
                if changes == self._changes:  # else it may be outdated already
                    self._cache.put(user_id, (rule_set, weight))
        return found

    def discard(self, user_ids: Collection[UserId]) -> None:
        """Forgets the rules of users, which have changed."""
        self._changes += 1
        for user_id in user_ids:
            kept = self._cache.get(user_id)
            if kept is None or kept[0].is_default:
                self._users_version += 1
            self._cache.discard(user_id)

    def clear(self) -> None:
        """Forgets everything."""
        self._changes += 1
        self._users_version += 1
        self._cache.clear()


class RuleChanges:
    """Follows the changes of push rules that other processes make."""

    def __init__(self, *, db: Database, hub: Hub, clock: Clock, rule_sets: RuleSets) -> None:
        self._db = db
        self._hub = hub
        self._clock = clock
        self._rule_sets = rule_sets

    async def run(self) -> None:
        """Drops what has changed from memory, until it is cancelled."""
        since: int | None = None
        with self._hub.subscribe({PUSH_RULES_KEY}) as waiter:
            while True:
                try:
                    upto = await self._hub.bound()
                    await self._discard_changed(since, upto)
                except DatabaseError as error:
                    logger.warning("Changes of push rules could not be read: %s", error)
                    await self._clock.sleep(_RETRY_SECONDS)
                    continue
                since = upto
                await waiter.wait(_IDLE_SECONDS, upto=upto)

    async def _discard_changed(self, since: int | None, upto: int) -> None:
        if since is None:
            self._rule_sets.clear()
            return
        async with self._db.connection() as conn:
            changed = await list_users_with_changed_rules(conn, since=since, upto=upto)
        if changed:
            self._rule_sets.discard(changed)
