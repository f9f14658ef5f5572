"""The push rules that are about one room, carried over to the room that replaces it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from homeserver.core.errors import InvalidParam, TooLarge
from homeserver.core.ids import RoomId
from homeserver.core.push_rules.rule import RULE_ID_BYTES_MAX, PushRule, PushRuleKind
from homeserver.core.push_rules.rule_set import RuleSet

_CONDITION_VALUES: Final[Mapping[str, str]] = {"event_match": "pattern", "event_property_is": "value"}
"""Which member of a condition names the room, by the condition's kind."""


def with_rules_of_room(rule_set: RuleSet, *, old_room_id: RoomId, new_room_id: RoomId) -> RuleSet:
    """Adds to a user's rules about one room the same ones about another, each right before the old one.

    Rules that are there already stay as they are, and none is added beyond the limits that users have.
    """
    for kind in PushRuleKind:
        for rule in rule_set.user_rules.get(kind, ()):
            copy = _rule_of_room(rule, old_room_id, new_room_id)
            if copy is None or any(each.rule_id == copy.rule_id for each in rule_set.rules(kind)):
                continue
            try:
                rule_set = rule_set.with_rule(copy, before=rule.rule_id)
            except (InvalidParam, TooLarge):
                return rule_set
    return rule_set


def _rule_of_room(rule: PushRule, old_room_id: RoomId, new_room_id: RoomId) -> PushRule | None:
    """A rule about one room made one about another; None if it is not about the room."""
    if rule.kind is PushRuleKind.ROOM:
        return replace(rule, rule_id=new_room_id) if rule.rule_id == old_room_id else None
    if not rule.kind.has_conditions:
        return None
    conditions = _conditions_of_room(rule.conditions_json, old_room_id, new_room_id)
    if conditions == rule.conditions_json:
        return None
    rule_id = rule.rule_id.replace(old_room_id, new_room_id)
    if rule_id == rule.rule_id:
        rule_id = f"{rule_id}_{new_room_id}"
    if len(rule_id.encode()) > RULE_ID_BYTES_MAX:
        return None
    return replace(rule, rule_id=rule_id, conditions_json=conditions)


def _conditions_of_room(
    conditions: Sequence[Mapping[str, Any]], old_room_id: RoomId, new_room_id: RoomId
) -> tuple[Mapping[str, Any], ...]:
    changed: list[Mapping[str, Any]] = []
    for condition in conditions:
        member = _CONDITION_VALUES.get(condition["kind"])
        if member is not None and condition.get("key") == "room_id" and condition.get(member) == old_room_id:
            changed.append({**condition, member: new_room_id})
        else:
            changed.append(condition)
    return tuple(changed)
