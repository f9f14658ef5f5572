"""The push rules of one user: adding, changing, ordering, storing."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotFound, TooLarge, Unknown
from homeserver.core.push_rules.conditions import PATTERN_LENGTH_MAX, Recipient
from homeserver.core.push_rules.evaluation import evaluate
from homeserver.core.push_rules.rule import RULE_BYTES_MAX, Actions, PushRule, PushRuleKind
from homeserver.core.push_rules.rule_set import RULE_SET_BYTES_MAX, RULES_MAX, RuleSet
from tests.core.push_values import (
    CONTENT,
    OVERRIDE,
    OWNER,
    ROOM,
    ROOM_KIND,
    SENDER_KIND,
    UNDERRIDE,
    context,
    event_match,
    push_event,
    rule,
    rule_set,
)


def ids(rules: RuleSet, kind: PushRuleKind = ROOM_KIND) -> list[str]:
    """The user's own rules of a kind, in order."""
    return [each.rule_id for each in rules.rules(kind) if not each.is_default]


def room_rules(*names: str) -> RuleSet:
    return rule_set(*(rule(ROOM_KIND, name) for name in names))


def test_kinds_are_checked_in_the_order_of_the_specification() -> None:
    assert list(RuleSet().to_json(OWNER)["global"]) == ["override", "content", "room", "sender", "underride"]


def test_rules_of_every_kind_are_shown() -> None:
    condition = event_match("content.msgtype", "m.notice")
    rules = rule_set(
        rule(OVERRIDE, "over", conditions=[condition]),
        rule(CONTENT, "тест", pattern="тест", conditions=[condition]),
        rule(ROOM_KIND, "!room:example.org", pattern="x", actions=[]),
        rule(SENDER_KIND, "@bob:example.org", actions=["notify", {"set_tweak": "sound", "value": "bing"}]),
        rule(UNDERRIDE, "under"),
    )
    shown = rules.to_json(OWNER)["global"]
    state = {"default": False, "enabled": True}
    assert shown["override"][1] == {"rule_id": "over", "actions": ["notify"], "conditions": [condition], **state}
    assert shown["content"] == [{"rule_id": "тест", "actions": ["notify"], "pattern": "тест", **state}]
    assert shown["room"] == [{"rule_id": "!room:example.org", "actions": [], **state}]
    assert shown["sender"] == [
        {"rule_id": "@bob:example.org", "actions": ["notify", {"set_tweak": "sound", "value": "bing"}], **state}
    ]
    assert shown["underride"][0] == {"rule_id": "under", "actions": ["notify"], "conditions": [], **state}
    assert json.loads(json.dumps(shown)) == shown


def test_the_master_rule_alone_stands_above_the_rules_of_users() -> None:
    rules = rule_set(rule(OVERRIDE, "over"), rule(UNDERRIDE, "under"))
    overrides = [each.rule_id for each in rules.rules(OVERRIDE)]
    assert overrides[:3] == [".m.rule.master", "over", ".m.rule.suppress_notices"]
    assert [each.rule_id for each in rules.rules(UNDERRIDE)][:2] == ["under", ".m.rule.call"]


def test_a_new_rule_is_the_most_important_of_its_kind() -> None:
    assert ids(RuleSet().with_rule(rule(ROOM_KIND, "a")).with_rule(rule(ROOM_KIND, "b"))) == ["b", "a"]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({"before": "a"}, ["new", "a", "b", "c"]),
        ({"before": "c"}, ["a", "b", "new", "c"]),
        ({"after": "a"}, ["a", "new", "b", "c"]),
        ({"after": "c"}, ["a", "b", "c", "new"]),
        ({"before": "b", "after": "c"}, ["a", "new", "b", "c"]),
        ({"before": "c", "after": "a"}, ["a", "b", "new", "c"]),
    ],
)
def test_new_rules_find_their_place(position: dict[str, str], expected: list[str]) -> None:
    assert ids(room_rules("a", "b", "c").with_rule(rule(ROOM_KIND, "new"), **position)) == expected


@pytest.mark.parametrize(
    ("name", "position", "expected"),
    [
        ("b", {}, ["a", "b", "c"]),
        ("b", {"before": "a"}, ["b", "a", "c"]),
        ("b", {"before": "c"}, ["a", "b", "c"]),
        ("a", {"before": "c"}, ["b", "a", "c"]),
        ("a", {"after": "c"}, ["b", "c", "a"]),
        ("c", {"after": "a"}, ["a", "c", "b"]),
    ],
)
def test_updated_rules_move_only_if_they_are_told_to(name: str, position: dict[str, str], expected: list[str]) -> None:
    rules = room_rules("a", "b", "c").with_rule(rule(ROOM_KIND, name, actions=[]), **position)
    assert ids(rules) == expected
    assert rules.get_rule(ROOM_KIND, name).actions.json == ()


@pytest.mark.parametrize("name", ["new", "a"])
@pytest.mark.parametrize(
    "position",
    [
        {"before": "x"},
        {"after": "x"},
        {"before": ""},
        {"before": "b", "after": "x"},
        {"before": "x", "after": "b"},
        {"before": ".m.rule.call"},
        {"after": ".m.rule.master"},
        {"before": "sender-rule"},
        {"after": "\ud800"},
        {"before": "0"},
        {"after": "-1"},
    ],
)
def test_s38_a_wrong_position_is_refused(name: str, position: dict[str, str]) -> None:
    """S38: rules relative to nothing, to rules of the server or of another kind change nothing and crash nothing."""
    rules = room_rules("a", "b").with_rule(rule(SENDER_KIND, "sender-rule"))
    with pytest.raises(Unknown) as error:
        rules.with_rule(rule(ROOM_KIND, name), **position)
    assert error.value.status == 400
    assert error.value.errcode == "M_UNKNOWN"
    assert ids(rules) == ["a", "b"]


@pytest.mark.parametrize("name", ["new", "a"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_s38_a_rule_has_no_place_relative_to_itself(name: str, where: str) -> None:
    with pytest.raises(Unknown):
        room_rules("a", "b").with_rule(rule(ROOM_KIND, name), **{where: name})


def test_rules_of_one_name_and_different_kinds_are_different_rules() -> None:
    rules = rule_set(rule(ROOM_KIND, "x"), rule(SENDER_KIND, "x"), rule(OVERRIDE, "x"))
    rules = rules.without_rule(SENDER_KIND, "x")
    assert (ids(rules, ROOM_KIND), ids(rules, SENDER_KIND), ids(rules, OVERRIDE)) == (["x"], [], ["x"])


def test_a_new_rule_is_enabled_and_an_update_does_not_enable() -> None:
    rules = room_rules("a").with_enabled(ROOM_KIND, "a", enabled=False)
    assert not rules.with_rule(rule(ROOM_KIND, "a")).get_rule(ROOM_KIND, "a").enabled
    again = rules.without_rule(ROOM_KIND, "a").with_rule(rule(ROOM_KIND, "a"))
    assert again.get_rule(ROOM_KIND, "a").enabled


def test_own_rules_are_changed() -> None:
    rules = room_rules("a", "b").with_enabled(ROOM_KIND, "a", enabled=False)
    rules = rules.with_actions(ROOM_KIND, "b", Actions.parse([{"set_tweak": "highlight"}]))
    assert ids(rules) == ["a", "b"]
    assert [each.enabled for each in rules.rules(ROOM_KIND)] == [False, True]
    assert [each.actions.json for each in rules.rules(ROOM_KIND)] == [("notify",), ({"set_tweak": "highlight"},)]


DEFAULTS = [(kind, each.rule_id) for kind in PushRuleKind for each in RuleSet().rules(kind)]


@pytest.mark.parametrize(("kind", "rule_id"), DEFAULTS)
def test_default_rules_are_changed_and_changed_back(kind: PushRuleKind, rule_id: str) -> None:
    default = RuleSet().get_rule(kind, rule_id)
    changed = RuleSet().with_enabled(kind, rule_id, enabled=not default.enabled)
    changed = changed.with_actions(kind, rule_id, Actions.parse(["dont_notify"]))
    assert changed.get_rule(kind, rule_id).enabled is not default.enabled
    assert changed.get_rule(kind, rule_id).to_json(OWNER)["actions"] == ["dont_notify"]
    assert not changed.is_default
    back = changed.with_enabled(kind, rule_id, enabled=default.enabled)
    assert back.get_rule(kind, rule_id).actions.json == ("dont_notify",)
    back = back.with_actions(kind, rule_id, default.actions)
    assert back.is_default
    assert back == RuleSet()


def test_whose_rules_are_the_defaults() -> None:
    assert RuleSet().is_default
    assert not room_rules("a").is_default
    assert room_rules("a").without_rule(ROOM_KIND, "a").is_default


@pytest.mark.parametrize("rule_id", [".not.a.default.rule", "unknown", "", ".m.rule.call"])
def test_rules_that_do_not_exist(rule_id: str) -> None:
    rules = room_rules("a")
    for change in (
        lambda: rules.get_rule(OVERRIDE, rule_id),
        lambda: rules.without_rule(OVERRIDE, rule_id),
        lambda: rules.with_enabled(OVERRIDE, rule_id, enabled=True),
        lambda: rules.with_actions(OVERRIDE, rule_id, Actions(("notify",))),
    ):
        with pytest.raises(NotFound):
            change()


def test_default_rules_cannot_be_removed() -> None:
    with pytest.raises(NotFound):
        RuleSet().without_rule(OVERRIDE, ".m.rule.master")


@pytest.mark.parametrize("kind", ["", "overrides", "OVERRIDE", "global", "\0"])
def test_kinds_that_do_not_exist(kind: str) -> None:
    with pytest.raises(InvalidParam):
        PushRuleKind.parse(kind)


@pytest.mark.parametrize("kind", list(PushRuleKind))
def test_kinds(kind: PushRuleKind) -> None:
    assert PushRuleKind.parse(kind.value) is kind


@pytest.mark.parametrize(
    "rule_id", ["", ".x", ".m.rule.master", "a/b", "/", "a\\b", "a\0", "\ud800", "x" * 256, "ä" * 128]
)
@pytest.mark.parametrize("kind", list(PushRuleKind))
def test_names_that_are_not_allowed(kind: PushRuleKind, rule_id: str) -> None:
    with pytest.raises(InvalidParam):
        rule(kind, rule_id, pattern="x")


@pytest.mark.parametrize("rule_id", ["x", "#spam:example.com", "x" * 255, "тест", "a.b", " ", "🦀", "!a:b?c"])
@pytest.mark.parametrize("kind", list(PushRuleKind))
def test_names_that_are_allowed(kind: PushRuleKind, rule_id: str) -> None:
    assert rule(kind, rule_id, pattern="x").rule_id == rule_id


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (ROOM_KIND, {}, MissingParam),
        (CONTENT, {"actions": []}, MissingParam),
        (CONTENT, {"actions": [], "pattern": None}, BadJson),
        (CONTENT, {"actions": [], "pattern": 7}, BadJson),
        (CONTENT, {"actions": [], "pattern": "a\0"}, BadJson),
        (CONTENT, {"actions": [], "pattern": "\udfff"}, BadJson),
        (CONTENT, {"actions": [], "pattern": "a" * (PATTERN_LENGTH_MAX + 1)}, InvalidParam),
        (OVERRIDE, {"actions": [], "conditions": {}}, BadJson),
        (OVERRIDE, {"actions": [], "conditions": None}, BadJson),
        (OVERRIDE, {"actions": [], "conditions": ["event_match"]}, BadJson),
        (OVERRIDE, {"actions": [], "conditions": [{"kind": "event_match", "key": "type"}]}, BadJson),
        (UNDERRIDE, {"actions": [], "conditions": [event_match("type", "a\0")]}, BadJson),
        (UNDERRIDE, {"actions": [], "conditions": [{"kind": "x", "y": "\ud800"}]}, BadJson),
        (UNDERRIDE, {"actions": [], "conditions": [{"kind": "x", "y": float("nan")}]}, BadJson),
        (UNDERRIDE, {"actions": [], "conditions": [{"kind": "x", "y": 2**53}]}, BadJson),
        (UNDERRIDE, {"actions": [], "conditions": [{"kind": "x", "y": "x" * RULE_BYTES_MAX}]}, TooLarge),
        (UNDERRIDE, {"actions": [], "conditions": [{"kind": "x"}] * RULE_BYTES_MAX}, TooLarge),
    ],
)
def test_wrong_rules(kind: PushRuleKind, body: dict[str, Any], error: type[MatrixError]) -> None:
    with pytest.raises(error):
        PushRule.parse(kind, "x", body)


@pytest.mark.parametrize(
    ("actions", "error"),
    [
        (None, BadJson),
        ("notify", BadJson),
        ({}, BadJson),
        ([7], BadJson),
        ([None], BadJson),
        ([["notify"]], BadJson),
        (["org.example.shout"], InvalidParam),
        ([{}], InvalidParam),
        ([{"set_tweak": 7}], InvalidParam),
        ([{"set_tweak": "a\0"}], BadJson),
        ([{"set_tweak": "a", "value": "\ud800"}], BadJson),
        ([{"set_tweak": "a", "value": 1.5}], BadJson),
        ([{"set_tweak": "a", "value": "x" * RULE_BYTES_MAX}], TooLarge),
        (["notify"] * RULE_BYTES_MAX, TooLarge),
    ],
)
def test_wrong_actions(actions: Any, error: type[MatrixError]) -> None:
    with pytest.raises(error):
        Actions.parse(actions)
    with pytest.raises(error):
        rule(ROOM_KIND, "x", actions=actions)


def test_deep_nesting_is_refused() -> None:
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(BadJson):
        Actions.parse([{"set_tweak": "a", "value": deep}])


def test_a_backslash_is_no_nul() -> None:
    assert Actions.parse([{"set_tweak": "a", "value": r"\u0000"}]).tweaks == {"a": r"\u0000"}


@pytest.mark.parametrize(
    ("json", "notify", "highlight", "tweaks"),
    [
        ([], False, False, {}),
        (["notify"], True, False, {}),
        (["dont_notify"], False, False, {}),
        (["coalesce", "notify"], True, False, {}),
        (["notify", {"set_tweak": "highlight"}], True, True, {"highlight": True}),
        (["notify", {"set_tweak": "highlight", "value": True}], True, True, {"highlight": True}),
        (["notify", {"set_tweak": "highlight", "value": False}], True, False, {"highlight": False}),
        ([{"set_tweak": "highlight"}], False, False, {"highlight": True}),
        (["notify", {"set_tweak": "sound", "value": "default"}], True, False, {"sound": "default"}),
        (["notify", {"set_tweak": "sound"}], True, False, {}),
        (["notify", {"set_tweak": "org.example.light", "value": [1]}], True, False, {"org.example.light": [1]}),
    ],
)
def test_what_actions_do(json: list[Any], notify: bool, highlight: bool, tweaks: dict[str, Any]) -> None:
    actions = Actions.parse(json)
    assert (actions.notify, actions.highlight, actions.tweaks) == (notify, highlight, tweaks)
    assert list(actions.json) == json


def test_there_is_a_limit_to_rules() -> None:
    rules = RuleSet({ROOM_KIND: tuple(rule(ROOM_KIND, f"r{number}") for number in range(RULES_MAX))})
    with pytest.raises(InvalidParam):
        rules.with_rule(rule(SENDER_KIND, "new"))
    assert len(ids(rules.with_rule(rule(ROOM_KIND, "r7"), after="r8"))) == RULES_MAX
    assert "new" in ids(rules.without_rule(ROOM_KIND, "r7").with_rule(rule(SENDER_KIND, "new")), SENDER_KIND)


def test_there_is_a_limit_to_their_size() -> None:
    large = [{"set_tweak": "x", "value": "y" * 16_000}]
    count = RULE_SET_BYTES_MAX // 16_100
    rules = RuleSet({ROOM_KIND: tuple(rule(ROOM_KIND, f"r{number}", actions=large) for number in range(count))})
    rules = rules.with_rule(rule(ROOM_KIND, "new"))
    with pytest.raises(TooLarge):
        rules.with_rule(rule(ROOM_KIND, "large", actions=large))
    with pytest.raises(TooLarge):
        rules.with_actions(ROOM_KIND, "new", Actions.parse(large))
    with pytest.raises(TooLarge):
        rules.with_actions(OVERRIDE, ".m.rule.master", Actions.parse(large))


def test_nothing_changed_stores_nothing() -> None:
    assert RuleSet().to_storage() == {}
    assert RuleSet.from_storage({}) == RuleSet()
    assert room_rules("a").without_rule(ROOM_KIND, "a").to_storage() == {}


def test_storage_keeps_changes_of_default_rules_that_this_server_does_not_have() -> None:
    stored = {"defaults": {".org.example.future": {"enabled": False, "actions": ["notify"]}}}
    rules = RuleSet.from_storage(stored)
    assert rules.to_storage() == stored
    assert rules.to_json(OWNER) == RuleSet().to_json(OWNER)


names = st.sampled_from(["a", "b", "c", ".m.rule.call", ".m.rule.master", "", "x/y"])
kinds = st.sampled_from(list(PushRuleKind))
steps = st.one_of(
    st.tuples(st.just("add"), kinds, names, st.none() | names, st.none() | names),
    st.tuples(st.just("remove"), kinds, names),
    st.tuples(st.just("enable"), kinds, names, st.booleans()),
    st.tuples(st.just("act"), kinds, names, st.sampled_from([[], ["notify"], [{"set_tweak": "highlight"}]])),
)


def take(rules: RuleSet, step: tuple[Any, ...]) -> RuleSet:
    match step:
        case ("add", kind, name, before, after):
            condition = event_match("content.body", name)
            new = rule(kind, name, pattern=name, conditions=[condition])
            return rules.with_rule(new, before=before, after=after)
        case ("remove", kind, name):
            return rules.without_rule(kind, name)
        case ("enable", kind, name, enabled):
            return rules.with_enabled(kind, name, enabled=enabled)
        case ("act", kind, name, actions):
            return rules.with_actions(kind, name, Actions.parse(actions))
    raise AssertionError(step)


@given(st.lists(steps, max_size=20))
def test_s38_any_changes_leave_a_good_set_that_storage_keeps(changes: list[tuple[Any, ...]]) -> None:
    """S38: whatever is asked for is done or refused with an error of the specification."""
    rules = RuleSet()
    for step in changes:
        before = rules.to_json(OWNER)
        refusal: MatrixError | None = None
        try:
            rules = take(rules, step)
        except MatrixError as error:
            refusal = error
        if refusal is not None:
            assert refusal.status in (400, 404)
            assert rules.to_json(OWNER) == before
    for kind in PushRuleKind:
        assert len(set(ids(rules, kind))) == len(ids(rules, kind))
        defaults = [each.rule_id for each in rules.rules(kind) if each.is_default]
        assert defaults == [each.rule_id for each in RuleSet().rules(kind)]
    stored = json.loads(json.dumps(rules.to_storage()))
    assert RuleSet.from_storage(stored) == rules
    assert RuleSet.from_storage(stored).to_json(OWNER) == rules.to_json(OWNER)


rooms = st.sampled_from(["a", "b", ROOM])


@given(st.lists(steps, max_size=6), st.sampled_from(["m.room.message", "m.call.invite", "a"]), rooms, rooms)
def test_a_set_that_may_not_deviate_does_what_the_default_rules_do(
    changes: list[tuple[Any, ...]], event_type: str, room_id: str, sender: str
) -> None:
    rules = RuleSet()
    for step in changes:
        with contextlib.suppress(MatrixError):
            rules = take(rules, step)
    event = push_event(event_type, sender=sender, room_id=room_id, content={"body": "b"})
    if not rules.may_deviate(event):
        owner = Recipient(OWNER)
        assert evaluate(rules, event, context(), owner) == evaluate(RuleSet(), event, context(), owner)


def test_rules_about_other_rooms_and_senders_do_not_deviate() -> None:
    rules = room_rules("!other:example.org").with_rule(rule(SENDER_KIND, "@other:example.org"))
    assert not rules.may_deviate(push_event())
    assert rules.may_deviate(push_event(room_id="!other:example.org"))
    assert rules.with_rule(rule(CONTENT, "tea", pattern="tea")).may_deviate(push_event())
    assert rules.with_actions(UNDERRIDE, ".m.rule.message", Actions(())).may_deviate(push_event())
    assert rules.with_enabled(OVERRIDE, ".m.rule.master", enabled=True).may_deviate(push_event())
