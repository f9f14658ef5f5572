"""Reading EDUs."""

import contextlib
from typing import Any

import pytest
from hypothesis import given

from homeserver.core.edu import EDU_BYTES_MAX, Edu, parse_edu
from homeserver.core.errors import BadJson, TooLarge
from homeserver.core.ids import ServerName
from tests.core.event_strategies import lenient_values

ORIGIN = ServerName("example.org")


def test_an_edu_is_read_and_written() -> None:
    json = {"edu_type": "m.typing", "content": {"typing": True}}
    edu = parse_edu(json | {"origin": "example.com", "destination": "x"}, origin=ORIGIN)
    assert edu == Edu("m.typing", ORIGIN, {"typing": True})
    assert edu.json() == json


@pytest.mark.parametrize(
    "json",
    [
        None,
        [],
        {},
        {"edu_type": "m.typing"},
        {"content": {}},
        {"edu_type": "m.typing", "content": []},
        {"edu_type": "m.typing", "content": None},
        {"edu_type": 5, "content": {}},
        {"edu_type": "", "content": {}},
        {"edu_type": "a\0", "content": {}},
        {"edu_type": "\ud800", "content": {}},
        {"edu_type": "m.typing", "content": {"a": "\ud800"}},
        {"edu_type": "m.typing", "content": {"a": float("inf")}},
    ],
)
def test_what_is_no_edu_is_refused(json: Any) -> None:
    with pytest.raises(BadJson):
        parse_edu(json, origin=ORIGIN)


def test_sizes_are_limited() -> None:
    parse_edu({"edu_type": "x" * 255, "content": {"a": "x" * (EDU_BYTES_MAX - 8)}}, origin=ORIGIN)
    for json in (
        {"edu_type": "x" * 256, "content": {}},
        {"edu_type": "é" * 128, "content": {}},
        {"edu_type": "x", "content": {"a": "x" * (EDU_BYTES_MAX - 7)}},
    ):
        with pytest.raises(TooLarge):
            parse_edu(json, origin=ORIGIN)


@given(lenient_values)
def test_no_value_is_an_accident(value: Any) -> None:
    for json in (value, {"edu_type": value, "content": {}}, {"edu_type": "x", "content": value}):
        with contextlib.suppress(BadJson):
            assert parse_edu(json, origin=ORIGIN).content is json["content"]
