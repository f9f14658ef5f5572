"""Evaluating push rules, for one user and for all users with the default rules."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.ids import UserId
from homeserver.core.push_rules.conditions import PushContext, PushEvent, Recipient
from homeserver.core.push_rules.evaluation import (
    DEFAULT_RULE_SET,
    evaluate,
    evaluate_defaults,
    matching_rule,
)
from homeserver.core.push_rules.rule import Actions, PushRuleKind
from homeserver.core.push_rules.rule_set import RuleSet
from tests.core.push_values import (
    CONTENT,
    OTHER,
    OVERRIDE,
    OWNER,
    ROOM,
    ROOM_KIND,
    SENDER,
    SENDER_KIND,
    UNDERRIDE,
    context,
    event_match,
    message,
    push_event,
    recipient,
    rule,
    rule_set,
)


def match(rules: RuleSet, event: PushEvent, room: PushContext | None = None, display_name: str | None = None) -> Any:
    matching = matching_rule(rules, event, room or context(), recipient(display_name))
    return None if matching is None else matching.rule_id


def test_kinds_are_checked_in_their_order() -> None:
    rules = [
        rule(OVERRIDE, "over"),
        rule(CONTENT, "content", pattern="hello"),
        rule(ROOM_KIND, ROOM),
        rule(SENDER_KIND, SENDER),
        rule(UNDERRIDE, "under"),
    ]
    for first in range(len(rules)):
        assert match(rule_set(*rules[first:]), message()) == rules[first].rule_id


def test_override_rules_of_the_user_go_before_those_of_the_server_and_underrides_too() -> None:
    rules = rule_set(rule(OVERRIDE, "over"), rule(UNDERRIDE, "under"))
    assert match(rules, message(msgtype="m.notice")) == "over"
    assert match(rules.without_rule(OVERRIDE, "over"), message(msgtype="m.notice")) == ".m.rule.suppress_notices"
    assert match(rules.without_rule(OVERRIDE, "over"), message()) == "under"


def test_the_first_of_a_kind_wins() -> None:
    rules = rule_set(rule(CONTENT, "tea", pattern="tea"), rule(CONTENT, "time", pattern="time"))
    assert match(rules, message("It's time for tea")) == "tea"
    swapped = rules.with_rule(rule(CONTENT, "time", pattern="time"), before="tea")
    assert match(swapped, message("It's time for tea")) == "time"


def test_disabled_rules_never_match() -> None:
    rules = rule_set(rule(ROOM_KIND, ROOM)).with_enabled(ROOM_KIND, ROOM, enabled=False)
    assert match(rules, message()) == ".m.rule.message"


@pytest.mark.parametrize(
    ("kind", "rule_id", "matches"),
    [
        (ROOM_KIND, ROOM, True),
        (ROOM_KIND, ROOM.upper(), False),
        (ROOM_KIND, "!*", False),
        (SENDER_KIND, SENDER, True),
        (SENDER_KIND, OTHER, False),
        (SENDER_KIND, "@SENDER:example.org", False),
    ],
)
def test_room_and_sender_rules_take_their_name_exactly(kind: PushRuleKind, rule_id: str, matches: bool) -> None:
    assert (match(rule_set(rule(kind, rule_id)), message()) == rule_id) is matches


@pytest.mark.parametrize(
    ("pattern", "body", "matches"),
    [
        ("cake", "I like CAKE!", True),
        ("cake*lie", "The cake is a lie.", True),
        ("cake*lie", "lies about cake", False),
        ("ca?e", "cafe", True),
        ("cake", "pancakes", False),
        ("cake", ["cake"], False),
    ],
)
def test_content_rules(pattern: str, body: Any, matches: bool) -> None:
    assert (match(rule_set(rule(CONTENT, "x", pattern=pattern)), message(body)) == "x") is matches


def test_the_examples_of_the_specification() -> None:
    conditions = [event_match("content.body", "beer"), {"kind": "room_member_count", "is": "<=10"}]
    actions = ["notify", {"set_tweak": "sound", "value": "beeroclock.wav"}]
    rules = rule_set(rule(OVERRIDE, "U2VlIHlvdSBpbiBUaGUgRHVrZQ", conditions=conditions, actions=actions))
    outcome = evaluate(rules, message("A beer?"), context(member_count=10), recipient())
    assert outcome is not None
    assert outcome.notify
    assert outcome.tweaks == {"sound": "beeroclock.wav"}
    assert match(rules, message("A beer?"), context(member_count=11)) == ".m.rule.message"


def test_all_conditions_must_hold_and_unknown_ones_never_do() -> None:
    body, room = event_match("content.body", "hello"), {"kind": "room_member_count", "is": ">10"}
    unknown = {"kind": "org.example.moon", "phase": "full"}
    for conditions, matches in (([], True), ([body], True), ([body, room], False), ([body, unknown], False)):
        assert (match(rule_set(rule(OVERRIDE, "x", conditions=conditions)), message()) == "x") is matches


def test_the_display_name_is_asked_for_only_where_it_is_read() -> None:
    rules = rule_set(rule(UNDERRIDE, "name", conditions=[{"kind": "contains_display_name"}]))
    assert rules.reads_display_name
    assert match(rules, message("hello Alice"), display_name="alice") == "name"
    assert match(rules, message("hello Alice"), display_name="bob") == ".m.rule.message"
    assert not rules.with_enabled(UNDERRIDE, "name", enabled=False).reads_display_name
    assert not DEFAULT_RULE_SET.reads_display_name


def test_without_a_rule_there_are_no_actions() -> None:
    assert evaluate(DEFAULT_RULE_SET, push_event("m.sticker"), context(), recipient()) is None


def test_a_matching_rule_may_have_no_actions() -> None:
    assert evaluate(rule_set(rule(ROOM_KIND, ROOM, actions=[])), message(), context(), recipient()) == Actions(())


@pytest.mark.parametrize("key", ["room_id", "sender", "type", "content.msgtype"])
@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ({"kind": "event_match", "pattern": "Some.Text"}, True),
        ({"kind": "event_match", "pattern": "some.text"}, True),
        ({"kind": "event_match", "pattern": "some.*"}, True),
        ({"kind": "event_match", "pattern": "some?text"}, True),
        ({"kind": "event_match", "pattern": "other"}, False),
        ({"kind": "event_property_is", "value": "Some.Text"}, True),
        ({"kind": "event_property_is", "value": "some.text"}, False),
        ({"kind": "event_property_is", "value": None}, False),
    ],
)
def test_what_rules_are_found_by(key: str, condition: dict[str, Any], matches: bool) -> None:
    event = PushEvent(
        {"room_id": "Some.Text", "sender": "Some.Text", "type": "Some.Text", "content": {"msgtype": "Some.Text"}}
    )
    rules = rule_set(rule(OVERRIDE, "x", conditions=[{"key": key, **condition}]))
    assert match(rules, event) == ("x" if matches else None)


names = st.sampled_from(["m.room.message", "m.reaction", "M.Room.Message", "x", ROOM, SENDER, OWNER, "m.*", "*"])
conditions = st.lists(
    st.one_of(
        st.builds(
            event_match, st.sampled_from(["type", "sender", "room_id", "content.msgtype", "content.body"]), names
        ),
        st.builds(
            lambda key, value: {"kind": "event_property_is", "key": key, "value": value},
            st.sampled_from(["type", "room_id", "content.msgtype"]),
            names | st.none(),
        ),
        st.sampled_from(
            [{"kind": "room_member_count", "is": ">2"}, {"kind": "contains_display_name"}, {"kind": "unknown"}]
        ),
    ),
    max_size=3,
)
rules_strategy = st.lists(
    st.tuples(st.sampled_from(list(PushRuleKind)), names, names, conditions, st.booleans()), max_size=12
)
events = st.builds(
    lambda event_type, msgtype, body: push_event(event_type, content={"msgtype": msgtype, "body": body}),
    names,
    names | st.none(),
    names,
)


@given(rules_strategy, events)
def test_the_index_of_rules_finds_what_going_through_all_of_them_finds(
    made: list[tuple[PushRuleKind, str, str, list[Any], bool]], event: PushEvent
) -> None:
    rules = RuleSet()
    for kind, name, pattern, with_conditions, enabled in made:
        new = rule(kind, name, pattern=pattern, conditions=with_conditions)
        rules = rules.with_rule(new).with_enabled(kind, name, enabled=enabled)
    expected = next(
        (
            each
            for kind in PushRuleKind
            for each in rules.rules(kind)
            if each.enabled and all(each.holds(event, context(), recipient("x")) for each in each.conditions)
        ),
        None,
    )
    assert matching_rule(rules, event, context(), recipient("x")) == expected


user_ids = st.sampled_from([OWNER, OTHER, UserId("@third:example.org")])
contents = st.fixed_dictionaries(
    {},
    optional={
        "msgtype": st.sampled_from(["m.text", "m.notice"]),
        "body": st.just("hello"),
        "membership": st.sampled_from(["invite", "join", 7]),
        "m.mentions": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "user_ids": st.lists(user_ids | st.none() | st.integers() | st.lists(user_ids)) | user_ids,
                "room": st.booleans() | st.just("true"),
            },
        ),
        "m.relates_to": st.just({"rel_type": "m.replace"}),
    },
)
default_events = st.builds(
    lambda event_type, content, state: push_event(event_type, content=content, **state),
    st.sampled_from(["m.room.message", "m.room.encrypted", "m.room.member", "m.reaction", "m.room.tombstone", "x"]),
    contents,
    st.just({}) | st.fixed_dictionaries({"state_key": user_ids | st.just("")}),
)


@given(default_events, st.sampled_from([context(), context(member_count=2), context(users_default=50)]))
def test_one_evaluation_of_the_defaults_is_right_for_everybody(event: PushEvent, room: PushContext) -> None:
    outcome = evaluate_defaults(event, room)
    for user_id in (OWNER, OTHER, UserId("@third:example.org"), UserId("@fourth:example.org")):
        expected = evaluate(DEFAULT_RULE_SET, event, room, Recipient(user_id))
        assert outcome.for_user(user_id) == expected
        if user_id not in outcome.named:
            assert outcome.everyone == expected


def test_who_is_named() -> None:
    mentioning = message(**{"m.mentions": {"user_ids": [OWNER, OWNER, None, 7, [OTHER]]}})
    outcome = evaluate_defaults(mentioning, context())
    assert outcome.named == {OWNER}
    assert outcome.everyone == Actions(("notify",))
    owner = outcome.for_user(OWNER)
    assert owner is not None
    assert owner.highlight
    assert outcome.for_user(OTHER) is outcome.everyone
    invite = push_event("m.room.member", state_key=OWNER, content={"membership": "invite"})
    assert evaluate_defaults(invite, context()).named == {OWNER}
    assert evaluate_defaults(message(), context()).named == frozenset()


def test_nobody_is_nameless() -> None:
    """An empty id among the mentioned, or as a state key, is nobody, least of all everybody else."""
    event = push_event(state_key="", content={"m.mentions": {"user_ids": ["", None]}})
    assert evaluate_defaults(event, context()).everyone == Actions(("notify",))


def test_events_from_others_may_hold_anything() -> None:
    odd: list[Any] = [None, 7, "x", [], {}, {"user_ids": {}}, {"user_ids": "x"}, {"user_ids": [{}], "room": []}]
    for mentions in odd:
        for relates_to in odd:
            event = message(body=mentions, **{"m.mentions": mentions, "m.relates_to": relates_to})
            assert evaluate_defaults(event, context()).everyone == Actions(("notify",))
