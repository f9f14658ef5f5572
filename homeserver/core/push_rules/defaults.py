"""The server-default push rules, in the specification's order.

https://spec.matrix.org/v1.19/client-server-api/#predefined-rules
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from homeserver.core.push_rules.conditions import OWNER
from homeserver.core.push_rules.rule import Actions, PushRule, PushRuleKind

_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_RING: Final = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}


def _rule(
    kind: PushRuleKind,
    rule_id: str,
    *conditions: Mapping[str, Any],
    actions: tuple[Any, ...] = (),
    enabled: bool = True,
) -> PushRule:
    return PushRule(kind, rule_id, Actions(actions), conditions_json=conditions, is_default=True, enabled=enabled)


def _event_match(key: str, pattern: object) -> Mapping[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


MASTER: Final = _rule(PushRuleKind.OVERRIDE, ".m.rule.master", enabled=False)
"""Turns everything off when it is enabled; the one default rule that stands above the rules of users."""

_OVERRIDE: Final = (
    _rule(PushRuleKind.OVERRIDE, ".m.rule.suppress_notices", _event_match("content.msgtype", "m.notice")),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.invite_for_me",
        _event_match("type", "m.room.member"),
        _event_match("content.membership", "invite"),
        _event_match("state_key", OWNER),
        actions=("notify", _SOUND),
    ),
    _rule(PushRuleKind.OVERRIDE, ".m.rule.member_event", _event_match("type", "m.room.member")),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.is_user_mention",
        {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": OWNER},
        actions=("notify", _SOUND, _HIGHLIGHT),
    ),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.is_room_mention",
        {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
        {"kind": "sender_notification_permission", "key": "room"},
        actions=("notify", _HIGHLIGHT),
    ),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.tombstone",
        _event_match("type", "m.room.tombstone"),
        _event_match("state_key", ""),
        actions=("notify", _HIGHLIGHT),
    ),
    _rule(PushRuleKind.OVERRIDE, ".m.rule.reaction", _event_match("type", "m.reaction")),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.room.server_acl",
        _event_match("type", "m.room.server_acl"),
        _event_match("state_key", ""),
    ),
    _rule(
        PushRuleKind.OVERRIDE,
        ".m.rule.suppress_edits",
        {"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"},
    ),
)

_TWO_MEMBERS: Final = {"kind": "room_member_count", "is": "2"}

_UNDERRIDE: Final = (
    _rule(PushRuleKind.UNDERRIDE, ".m.rule.call", _event_match("type", "m.call.invite"), actions=("notify", _RING)),
    _rule(
        PushRuleKind.UNDERRIDE,
        ".m.rule.encrypted_room_one_to_one",
        _TWO_MEMBERS,
        _event_match("type", "m.room.encrypted"),
        actions=("notify", _SOUND),
    ),
    _rule(
        PushRuleKind.UNDERRIDE,
        ".m.rule.room_one_to_one",
        _TWO_MEMBERS,
        _event_match("type", "m.room.message"),
        actions=("notify", _SOUND),
    ),
    _rule(PushRuleKind.UNDERRIDE, ".m.rule.message", _event_match("type", "m.room.message"), actions=("notify",)),
    _rule(PushRuleKind.UNDERRIDE, ".m.rule.encrypted", _event_match("type", "m.room.encrypted"), actions=("notify",)),
)

DEFAULT_RULES: Final[Mapping[PushRuleKind, tuple[PushRule, ...]]] = MappingProxyType(
    {PushRuleKind.OVERRIDE: _OVERRIDE, PushRuleKind.UNDERRIDE: _UNDERRIDE}
)
"""The default rules of each kind that has some, without `MASTER`. They come after the rules of the user."""
