"""The conditions of push rules."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import BadJson
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import EventId
from homeserver.core.push_rules.conditions import (
    PATTERN_LENGTH_MAX,
    PushContext,
    PushEvent,
    check_condition,
    compile_condition,
)
from homeserver.core.room_versions import DEFAULT_ROOM_VERSION
from tests.core.push_values import OTHER, SENDER, context, event_match, message, push_event, recipient
from tests.core.room_values import USER, event


def holds(
    condition: Any, event: PushEvent, *, room: PushContext | None = None, display_name: str | None = None
) -> bool:
    return compile_condition(condition).holds(event, room or context(), recipient(display_name))


@pytest.mark.parametrize(
    ("key", "pattern", "members", "expected"),
    [
        ("content.topic", "lunc?*", {"content": {"topic": "Lunch plans"}}, True),
        ("content.topic", "lunc?*", {"content": {"topic": "LUNCH"}}, True),
        ("content.topic", "lunc?*", {"content": {"topic": " lunch"}}, False),
        ("content.topic", "lunc?*", {"content": {"topic": "lunc"}}, False),
        ("content.topic", "lunc?*", {"content": {"topic": None}}, False),
        ("content.topic", "*", {}, False),
        ("content.topic", "*", {"content": {"topic": 7}}, False),
        ("content.topic", "*", {"content": {"topic": ["a"]}}, False),
        ("content.topic", "*", {"content": {"topic": ""}}, True),
        ("content.body", "ex*ple", {"content": {"body": "An example event."}}, True),
        ("content.body", "ex*ple", {"content": {"body": "exple"}}, True),
        ("content.body", "ex*ple", {"content": {"body": "An exciting triple-whammy"}}, True),
        ("content.body", "ex*ple", {"content": {"body": "unexampled"}}, False),
        ("content.body", "ex*ple", {"content": {"body": ["example"]}}, False),
        ("content.formatted_body", "example", {"content": {"formatted_body": "an example"}}, False),
        (r"content.m\.x.y", "z", {"content": {"m.x": {"y": "Z"}}}, True),
        (r"content.m\.x.y", "z", {"content": {"m": {"x": {"y": "z"}}}}, False),
        ("content.m.x.y", "z", {"content": {"m": {"x": {"y": "z"}}}}, True),
        ("type", "m.room.message", {}, True),
        ("type", "m.room.*", {}, True),
        ("type", "m.reaction", {}, False),
        ("sender", SENDER, {}, True),
        ("state_key", "", {"state_key": ""}, True),
        ("state_key", "", {}, False),
        ("state_key", "", {"state_key": "a"}, False),
        ("content", "*", {}, False),
        ("", "*", {}, False),
    ],
)
def test_event_match(key: str, pattern: str, members: dict[str, Any], expected: bool) -> None:
    assert holds(event_match(key, pattern), push_event(**members)) is expected


@pytest.mark.parametrize(
    ("value", "property_value", "expected"),
    [
        (True, True, True),
        (True, "true", False),
        (True, 1, False),
        (1, True, False),
        (1, 1, True),
        (1, 1.0, False),
        (0, False, False),
        (None, None, True),
        (None, "", False),
        ("a", "a", True),
        ("a", "A", False),
        ("*", "a", False),
        ("a", ["a"], False),
        (2**53 - 1, 2**53 - 1, True),
    ],
)
def test_event_property_is_and_contains(value: Any, property_value: Any, expected: bool) -> None:
    is_value = {"kind": "event_property_is", "key": r"content.m\.x", "value": value}
    assert holds(is_value, push_event(content={"m.x": property_value})) is expected
    contains_value = {**is_value, "kind": "event_property_contains"}
    assert holds(contains_value, push_event(content={"m.x": [{}, property_value, []]})) is expected


@pytest.mark.parametrize("kind", ["event_property_is", "event_property_contains"])
def test_a_property_that_is_absent_or_compound(kind: str) -> None:
    condition = {"kind": kind, "key": "content.x", "value": None}
    contents: list[dict[str, Any]] = [{}, {"x": {}}, {"x": []}, {"x": [[None]]}, {"x": {"null": None}}]
    for content in contents:
        assert not holds(condition, push_event(content=content))


def test_an_alias_among_aliases() -> None:
    content = {"alias": "#somewhere:localhost", "alt_aliases": ["#somewhere:example.org", "#myroom:example.com"]}
    condition = {"kind": "event_property_contains", "key": "content.alt_aliases", "value": "#myroom:example.com"}
    assert holds(condition, push_event("m.room.canonical_alias", content=content))
    assert not holds({**condition, "value": ":example.com"}, push_event("m.room.canonical_alias", content=content))
    assert not holds({**condition, "key": "content.alias"}, push_event(content={"alias": "#myroom:example.com"}))


@pytest.mark.parametrize(
    ("display_name", "body", "expected"),
    [
        ("Alice", "hello Alice!", True),
        ("alice", "hello ALICE", True),
        ("Alice", "hello Alicent", False),
        ("Al*ce", "hello Alice", False),
        ("Al*ce", "hello al*ce", True),
        ("Mr. (T)", "it is Mr. (T)", True),
        ("Ünal Şahin", "danke, ünal şahin", True),
        ("", "hello", False),
        (None, "hello", False),
        ("Alice", None, False),
    ],
)
def test_contains_display_name(display_name: str | None, body: Any, expected: bool) -> None:
    assert holds({"kind": "contains_display_name"}, message(body), display_name=display_name) is expected


@pytest.mark.parametrize(
    ("comparison", "counts"),
    [("2", [2]), ("==2", [2]), ("<2", [0, 1]), (">2", [3]), (">=2", [2, 3]), ("<=2", [0, 1, 2]), ("002", [2])],
)
def test_room_member_count(comparison: str, counts: list[int]) -> None:
    condition = {"kind": "room_member_count", "is": comparison}
    assert [count for count in range(4) if holds(condition, message(), room=context(member_count=count))] == counts


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({}, False),
        ({"users": {SENDER: 50}}, True),
        ({"users": {SENDER: 49}}, False),
        ({"users": {SENDER: 20}, "notifications": {"room": 20}}, True),
        ({"users": {SENDER: 50}, "notifications": {"room": 51}}, False),
        ({"users_default": 50}, True),
        ({"users": {OTHER: 100}}, False),
        ({"users": {SENDER: 50}, "notifications": {"other": 100}}, True),
    ],
)
def test_sender_notification_permission(levels: dict[str, Any], expected: bool) -> None:
    condition = {"kind": "sender_notification_permission", "key": "room"}
    assert holds(condition, message(), room=context(**levels)) is expected


def test_a_creator_may_trigger_any_notification() -> None:
    levels = PowerLevels.parse(
        {"notifications": {"room": 2**53 - 1}}, DEFAULT_ROOM_VERSION, creators=frozenset({SENDER})
    )
    condition = {"kind": "sender_notification_permission", "key": "room"}
    assert holds(condition, message(), room=PushContext(5, levels))


WRONG: list[Any] = [
    {"kind": "event_match"},
    {"kind": "event_match", "key": "content.body"},
    {"kind": "event_match", "pattern": "*"},
    {"kind": "event_match", "key": 7, "pattern": "*"},
    {"kind": "event_match", "key": "type", "pattern": None},
    {"kind": "event_match", "key": "type", "pattern": "*" * (PATTERN_LENGTH_MAX + 1)},
    {"kind": "event_property_is", "key": "type"},
    {"kind": "event_property_is", "value": "a"},
    {"kind": "event_property_is", "key": "type", "value": []},
    {"kind": "event_property_is", "key": "type", "value": 1.5},
    {"kind": "event_property_is", "key": "type", "value": math.nan},
    {"kind": "event_property_is", "key": "type", "value": 2**53},
    {"kind": "event_property_contains", "key": "type", "value": {}},
    {"kind": "event_property_contains", "key": "type"},
    {"kind": "room_member_count"},
    {"kind": "room_member_count", "is": 2},
    {"kind": "room_member_count", "is": ""},
    {"kind": "room_member_count", "is": "=2"},
    {"kind": "room_member_count", "is": "<>2"},
    {"kind": "room_member_count", "is": "-1"},
    {"kind": "room_member_count", "is": " 2"},
    {"kind": "room_member_count", "is": "²"},
    {"kind": "room_member_count", "is": "9" * 100_000},
    {"kind": "sender_notification_permission"},
    {"kind": "sender_notification_permission", "key": ["room"]},
]


@pytest.mark.parametrize("condition", WRONG, ids=range(len(WRONG)))
def test_a_condition_with_a_wrong_parameter_is_refused_and_never_holds(condition: Any) -> None:
    with pytest.raises(BadJson):
        check_condition(condition)
    assert not holds(condition, message())


@pytest.mark.parametrize("condition", [None, "event_match", [], {}, {"kind": None}, {"kind": ["event_match"]}])
def test_what_is_no_condition_is_refused(condition: Any) -> None:
    with pytest.raises(BadJson):
        check_condition(condition)


def test_an_unknown_condition_is_accepted_and_never_holds() -> None:
    condition = {"kind": "org.example.device", "profile_tag": "x"}
    check_condition(condition)
    assert not holds(condition, message())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(
    condition=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(
                [
                    "event_match",
                    "event_property_is",
                    "event_property_contains",
                    "contains_display_name",
                    "room_member_count",
                    "sender_notification_permission",
                ]
            )
        },
        optional={
            "key": json_values | st.just("content.body"),
            "pattern": json_values,
            "value": json_values,
            "is": json_values,
        },
    ),
    body=json_values,
)
def test_any_condition_can_be_asked_about_any_event(condition: Any, body: Any) -> None:
    assert holds(condition, message(body), display_name="a") in (True, False)


def test_an_event_of_a_room_shows_what_clients_see() -> None:
    pdu = event(
        DEFAULT_ROOM_VERSION,
        "m.room.redaction",
        sender=USER,
        content={"redacts": "$x"},
        redacts=EventId("$x"),
        origin_server_ts=7,
    )
    wrapped = PushEvent.of_pdu(pdu)
    assert wrapped.sender == USER
    assert holds(event_match("type", "m.room.redaction"), wrapped)
    assert holds(event_match("room_id", pdu.room_id), wrapped)
    assert holds(event_match("event_id", pdu.event_id), wrapped)
    assert holds(event_match("redacts", "$x"), wrapped)
    assert holds({"kind": "event_property_is", "key": "origin_server_ts", "value": 7}, wrapped)
    assert not holds(event_match("state_key", "*"), wrapped)
    assert not holds(event_match("depth", "*"), wrapped)
    state = PushEvent.of_pdu(event(DEFAULT_ROOM_VERSION, "m.room.name", sender=USER, state_key=""))
    assert holds(event_match("state_key", ""), state)
    assert not holds(event_match("redacts", "*"), state)
