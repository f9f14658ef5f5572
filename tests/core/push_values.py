"""Events, rooms and rules as plain values, for tests of push rules."""

from collections.abc import Mapping
from typing import Any

from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import UserId
from homeserver.core.push_rules.conditions import PushContext, PushEvent, Recipient
from homeserver.core.push_rules.rule import PushRule, PushRuleKind
from homeserver.core.push_rules.rule_set import RuleSet
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION

SENDER = UserId("@sender:example.org")
OWNER = UserId("@owner:example.org")
OTHER = UserId("@other:example.org")
ROOM = "!room:example.org"

OVERRIDE, CONTENT, ROOM_KIND, SENDER_KIND, UNDERRIDE = PushRuleKind


def push_event(event_type: str = "m.room.message", *, sender: str = SENDER, **members: Any) -> PushEvent:
    """An event in the form that clients see."""
    return PushEvent({"type": event_type, "sender": sender, "room_id": ROOM, "content": {}, **members})


def message(body: Any = "hello", **content: Any) -> PushEvent:
    """A text message."""
    return push_event(content={"msgtype": "m.text", "body": body, **content})


def context(*, member_count: int = 5, **power_levels: Any) -> PushContext:
    """A room."""
    return PushContext(member_count, PowerLevels.parse(power_levels, DEFAULT_ROOM_VERSION))


def recipient(display_name: str | None = None) -> Recipient:
    """The owner of the rules."""
    return Recipient(OWNER, display_name)


def rule(kind: PushRuleKind, rule_id: str, **body: Any) -> PushRule:
    """A rule as a user would send it; it notifies unless `actions` says something else."""
    return PushRule.parse(kind, rule_id, {"actions": ["notify"], **body})


def rule_set(*rules: PushRule) -> RuleSet:
    """A set with these rules of the user's own, each less important than those before it."""
    result = RuleSet()
    for each in reversed(rules):
        result = result.with_rule(each)
    return result


def event_match(key: str, pattern: str) -> Mapping[str, Any]:
    """A condition."""
    return {"kind": "event_match", "key": key, "pattern": pattern}
