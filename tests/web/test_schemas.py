"""Checking bodies against schemas."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.errors import BadJson, MatrixError, MissingParam
from homeserver.web.schemas import compile_schema

SCHEMA = {
    "type": "object",
    "required": ["password", "devices"],
    "properties": {
        "password": {"type": "string", "maxLength": 10},
        "kind": {"enum": ["a", "b"]},
        "timeout": {"type": "integer", "minimum": 0, "maximum": 5},
        "devices": {
            "type": "array",
            "maxItems": 2,
            "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": ["string", "null"]}}},
        },
    },
}
GOOD = {"password": "secret", "devices": [{"id": "x"}, {"id": None}]}
check = compile_schema(SCHEMA)


def test_what_fits_passes() -> None:
    check(GOOD)
    check({**GOOD, "timeout": 5, "kind": "b", "unknown": [1.5]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Missing password, devices"),
        ({"password": "x"}, "Missing devices"),
        ({**GOOD, "devices": [{"id": "x"}, {}]}, "Missing devices[1].id"),
    ],
)
def test_missing_members(body: Any, message: str) -> None:
    with pytest.raises(MissingParam) as raised:
        check(body)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "The body must be an object"),
        (None, "The body must be an object"),
        ({**GOOD, "password": 7}, "password must be a string"),
        ({**GOOD, "password": "hunter2hunter2"}, "password must have at most 10 characters"),
        ({**GOOD, "kind": "hunter2"}, "kind must be one of a, b"),
        ({**GOOD, "timeout": 1.0}, "timeout must be an integer"),
        ({**GOOD, "timeout": True}, "timeout must be an integer"),
        ({**GOOD, "timeout": 2**53}, "timeout must be an integer"),
        ({**GOOD, "timeout": -1}, "timeout must be at least 0"),
        ({**GOOD, "timeout": 6}, "timeout must be at most 5"),
        ({**GOOD, "devices": [{"id": 1}]}, "devices[0].id must be a string or null"),
        ({**GOOD, "devices": [{"id": "1"}] * 3}, "devices must have at most 2 entries"),
    ],
)
def test_wrong_values_are_named_by_place_and_never_shown(body: Any, message: str) -> None:
    with pytest.raises(BadJson) as raised:
        check(body)
    assert raised.value.message == message
    assert "hunter2" not in message


def test_names_chosen_by_the_client_are_cut() -> None:
    numbers = compile_schema({"type": "object", "additionalProperties": {"type": "integer"}})
    with pytest.raises(BadJson) as raised:
        numbers({"x" * 10_000: "1"})
    assert len(raised.value.message) < 200


def test_a_schema_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(jsonschema.SchemaError):
        compile_schema({"type": "text"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*SCHEMA["properties"], "id"]), inner),
)


@given(json_values)
def test_nothing_but_an_error_for_the_client_comes_out(body: Any) -> None:
    try:
        check(body)
    except MatrixError as error:
        assert error.status == 400
    else:
        assert isinstance(body["password"], str)
