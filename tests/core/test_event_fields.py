"""The `event_fields` of filters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.event_fields import EventFields, apply_event_fields

EVENT = {
    "type": "m.room.message",
    "sender": "@alice:example.org",
    "content": {"body": "hello", "m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}, "list": [{"a": 1}]},
    "unsigned": {"age": 7},
}


def project(*paths: str) -> Any:
    return apply_event_fields(EVENT, EventFields.compile(paths))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["type"], {"type": "m.room.message"}),
        (["content.body"], {"content": {"body": "hello"}}),
        (["content.body", "type"], {"content": {"body": "hello"}, "type": "m.room.message"}),
        ([r"content.m\.relates_to.rel_type"], {"content": {"m.relates_to": {"rel_type": "m.thread"}}}),
        (["content.m.relates_to"], {"content": {}}),
        (["content", "content.body"], {"content": EVENT["content"]}),
        (["content.body", "content"], {"content": EVENT["content"]}),
        (["content.list.a"], {"content": {}}),
        (["type.x"], {}),
        (["nothing", "unsigned.age"], {"unsigned": {"age": 7}}),
        ([""], {}),
        ([], {}),
    ],
)
def test_examples(paths: list[str], expected: dict[str, Any]) -> None:
    assert project(*paths) == expected


def test_without_fields_the_event_stays_whole() -> None:
    assert apply_event_fields(EVENT, None) is EVENT


def test_the_event_is_not_changed() -> None:
    before = repr(EVENT)
    projected = project("content.body")
    projected["content"]["more"] = 1
    assert repr(EVENT) == before


def test_what_is_deeper_than_paths_are_followed_is_given_whole() -> None:
    event: dict[str, Any] = {"z": 1}
    for _ in range(100):
        event = {"a": event, "b": 2}
    projected = apply_event_fields(event, EventFields.compile([".".join("a" * 100)]))
    for _ in range(32):
        assert projected.keys() == {"a"}
        projected = projected["a"]
    assert projected.keys() == {"a", "b"}


@given(st.lists(st.text(alphabet=r"ab.\\", max_size=200), max_size=20), st.dictionaries(st.text("ab"), st.none()))
def test_any_path_gives_a_part_of_the_event(paths: list[str], event: dict[str, Any]) -> None:
    assert apply_event_fields(event, EventFields.compile(paths)).items() <= event.items()
