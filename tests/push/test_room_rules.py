"""Carrying the rules about a room over to the room that replaces it."""

from typing import Any

from homeserver.core.ids import RoomId
from homeserver.core.push_rules.rule import PushRule, PushRuleKind
from homeserver.core.push_rules.rule_set import RULES_MAX, RuleSet
from homeserver.services.push.room_rules import with_rules_of_room

OLD, NEW = RoomId("!old:example.org"), RoomId("!new:example.org")


def with_rule(rules: RuleSet, kind: PushRuleKind, rule_id: str, **body: Any) -> RuleSet:
    return rules.with_rule(PushRule.parse(kind, rule_id, {"actions": [], **body}))


def carried(rules: RuleSet) -> RuleSet:
    return with_rules_of_room(rules, old_room_id=OLD, new_room_id=NEW)


def names(rules: RuleSet, kind: PushRuleKind) -> list[str]:
    return [rule.rule_id for rule in rules.user_rules.get(kind, ())]


def test_who_has_no_rules_about_the_room_keeps_them_as_they_are() -> None:
    rules = with_rule(RuleSet(), PushRuleKind.ROOM, "!other:example.org")
    rules = with_rule(rules, PushRuleKind.SENDER, OLD)
    rules = with_rule(rules, PushRuleKind.CONTENT, OLD, pattern=OLD)
    odd = [{"kind": "event_match", "key": "content.body", "pattern": OLD}, {"kind": "of_my_own", "pattern": OLD}]
    rules = with_rule(rules, PushRuleKind.OVERRIDE, OLD, conditions=odd)
    assert carried(rules) == rules
    assert carried(RuleSet()) == RuleSet()


def test_it_happens_once_and_keeps_what_is_there() -> None:
    rules = with_rule(RuleSet(), PushRuleKind.ROOM, OLD).with_enabled(PushRuleKind.ROOM, OLD, enabled=False)
    once = carried(rules)
    assert names(once, PushRuleKind.ROOM) == [NEW, OLD]
    assert not once.get_rule(PushRuleKind.ROOM, NEW).enabled
    heard = once.with_enabled(PushRuleKind.ROOM, NEW, enabled=True)
    assert carried(heard) == heard


def test_conditions_of_both_kinds_are_carried_over() -> None:
    for kind, member in (("event_match", "pattern"), ("event_property_is", "value")):
        condition = {"kind": kind, "key": "room_id", member: OLD}
        rules = carried(with_rule(RuleSet(), PushRuleKind.OVERRIDE, "mine", conditions=[condition]))
        copy = rules.get_rule(PushRuleKind.OVERRIDE, f"mine_{NEW}")
        assert copy.conditions_json == ({**condition, member: NEW},)


def test_limits_are_kept() -> None:
    condition = {"kind": "event_match", "key": "room_id", "pattern": OLD}
    long = with_rule(RuleSet(), PushRuleKind.OVERRIDE, "x" * 255, conditions=[condition])
    assert carried(long) == long
    senders = (f"@{number}:example.org" for number in range(RULES_MAX - 1))
    rules = tuple(PushRule.parse(PushRuleKind.SENDER, sender, {"actions": []}) for sender in senders)
    room_rule = PushRule.parse(PushRuleKind.ROOM, OLD, {"actions": []})
    full = RuleSet({PushRuleKind.SENDER: rules, PushRuleKind.ROOM: (room_rule,)})
    assert carried(full) == full
