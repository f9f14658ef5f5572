"""Reading children of spaces, and their order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.spaces import child_order, is_suggested, is_valid_child


def test_the_order_of_the_specifications_example() -> None:
    children = [
        ("!b:example.org", 1640341000000, {"order": " ", "via": ["example.org"]}),
        ("!a:example.org", 1640141000000, {"order": "aaaa", "via": ["example.org"]}),
        ("!c:example.org", 1640841000000, {"order": "first", "via": ["example.org"]}),
        ("!e:example.org", 1640641000000, {"via": ["example.org"]}),
        ("!d:example.org", 1640741000000, {"via": ["example.org"]}),
    ]
    shuffled = children[::-1]
    shuffled.sort(key=lambda child: child_order(child[2], origin_server_ts=child[1], room_id=child[0]))
    assert shuffled == children


@pytest.mark.parametrize("order", ["x" * 51, "\x1f", "\x7f", "é", 5, None, [], {}])
def test_an_order_that_is_none_comes_last(order: Any) -> None:
    none = child_order({"order": order}, origin_server_ts=0, room_id="!a")
    assert none == child_order({}, origin_server_ts=0, room_id="!a")
    assert none > child_order({"order": "~" * 50}, origin_server_ts=9, room_id="!z")


def test_time_and_then_the_room_id_break_ties() -> None:
    keys = [child_order({"order": "a"}, origin_server_ts=ts, room_id=room_id) for ts, room_id in ((1, "!b"), (2, "!a"))]
    assert keys == sorted(keys)
    assert child_order({}, origin_server_ts=1, room_id="!a") < child_order({}, origin_server_ts=1, room_id="!b")


@pytest.mark.parametrize(
    ("content", "valid"),
    [
        ({"via": ["example.org"]}, True),
        ({"via": [5, "example.org"]}, True),
        ({"via": []}, False),
        ({"via": [5]}, False),
        ({"via": "example.org"}, False),
        ({}, False),
    ],
)
def test_a_child_names_servers(content: dict[str, Any], valid: bool) -> None:
    assert is_valid_child(content) is valid


@pytest.mark.parametrize(
    ("value", "suggested"), [(True, True), (False, False), (1, False), ("true", False), (None, False)]
)
def test_only_true_suggests(value: Any, suggested: bool) -> None:
    assert is_suggested({"suggested": value}) is suggested


@given(st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=60)), st.integers(0, 5), st.text(max_size=3))))
def test_any_children_can_be_ordered(children: list[tuple[str | None, int, str]]) -> None:
    keys = [child_order({"order": order}, origin_server_ts=ts, room_id=room_id) for order, ts, room_id in children]
    shuffled = keys[::-1]
    shuffled.sort()
    assert shuffled == sorted(keys)
