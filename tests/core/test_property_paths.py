"""Dot-separated property paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.property_paths import ABSENT, find_property, parse_property_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", "m\\foo")),
        (r"content.m\xfoo", ("content", "m\\xfoo")),
        (r"content.m\\.foo", ("content", "m\\", "foo")),
        ("type", ("type",)),
        ("", ("",)),
        ("..", ("", "", "")),
        ("a\\", ("a\\",)),
    ],
)
def test_examples(text: str, path: tuple[str, ...]) -> None:
    assert parse_property_path(text) == path


@given(st.lists(st.text(alphabet=".\\ab"), min_size=1))
def test_escaped_names_come_back(names: list[str]) -> None:
    text = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert parse_property_path(text) == tuple(names)


def test_finding_properties() -> None:
    event = {"content": {"m.x": {"y": None}, "list": [{"z": 1}], "text": "abc"}}
    assert find_property(event, ("content", "m.x", "y")) is None
    assert find_property(event, ("content", "m.x")) == {"y": None}
    assert find_property(event, ("content", "m.x", "z")) is ABSENT
    assert find_property(event, ("content", "list", "z")) is ABSENT
    assert find_property(event, ("content", "list", "0")) is ABSENT
    assert find_property(event, ("content", "text", "a")) is ABSENT
    assert find_property(event, ()) is event
