"""Canonical JSON against the specification's examples and another implementation, and the refusal of hostile JSON."""

import json
import math
from typing import Any

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.core.canonical_json import (
    INTEGER_MAX,
    JSON_DEPTH_MAX,
    check_strict,
    encode_canonical,
    encode_strict,
    parse_json,
)
from homeserver.core.errors import BadJson, NotJson
from homeserver.core.ids import UserId
from tests.core.event_strategies import lenient_values, strict_values


def nested(depth: int) -> Any:
    """Lists in each other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


# appendices, "Canonical JSON", Examples
SPECIFICATION = [
    ("{}", "{}"),
    ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
    ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
    ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
    (
        """{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
            "three_pids": [{"medium": "email", "address": "john.doe@example.org"},
                           {"medium": "msisdn", "address": "123456789"}]}}}""",
        '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":'
        '[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
        '"success":true}}',
    ),
    ('{"a": "日本語"}', '{"a":"日本語"}'),
    ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
    (r'{"a": "\u65E5"}', '{"a":"日"}'),
    ('{"a": null}', '{"a":null}'),
    ('{"a": -0}', '{"a":0}'),
]


@pytest.mark.parametrize(("given_json", "canonical"), SPECIFICATION)
def test_examples_of_the_specification(given_json: str, canonical: str) -> None:
    assert encode_canonical(parse_json(given_json)) == canonical.encode()
    assert encode_strict(parse_json(given_json)) == canonical.encode()


def test_an_exponent_makes_a_float_as_other_servers_read_it() -> None:
    # The specification's last example makes 10000000000 of 1e10. No server that was looked at does; a room version that
    # enforces canonical JSON refuses the number, and in an older one all must agree on the hash.
    value = parse_json('{"b": 1e10}')
    assert encode_canonical(value) == canonicaljson.encode_canonical_json(json.loads('{"b": 1e10}'))
    with pytest.raises(BadJson):
        check_strict(value)


def test_keys_are_sorted_by_code_point_and_not_by_utf16() -> None:
    keys = ["z", "\ue000", "\uffff", "\U00010000", "\U0001f600"]
    assert list(json.loads(encode_canonical(dict.fromkeys(reversed(keys), 0)))) == keys


@given(strict_values)
def test_strict_values_are_encoded_as_by_the_reference(value: Any) -> None:
    assert encode_canonical(value) == encode_strict(value) == canonicaljson.encode_canonical_json(value)
    check_strict(value)


@given(lenient_values)
def test_lenient_values_are_encoded_as_by_the_reference(value: Any) -> None:
    assert encode_canonical(value) == canonicaljson.encode_canonical_json(value)


@given(lenient_values)
def test_what_was_encoded_reads_back_the_same(value: Any) -> None:
    assert repr(parse_json(json.dumps(value))) == repr(value)
    assert encode_canonical(parse_json(encode_canonical(value))) == encode_canonical(value)


@pytest.mark.parametrize("integer", [2**53, -(2**53), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**300])
def test_large_integers_are_kept_to_the_last_digit(integer: int) -> None:
    assert parse_json(f'{{"a":[{integer}]}}') == {"a": [integer]}
    assert encode_canonical({"a": [integer]}) == b'{"a":[%d]}' % integer


def test_an_identifier_may_be_a_key() -> None:
    value = {"users": {UserId("@b:x"): 1, UserId("@a:x"): 2}}
    assert encode_canonical(value) == encode_strict(value) == b'{"users":{"@a:x":2,"@b:x":1}}'


# S18: floats, integers beyond 2^53, duplicate keys, NaN, lone surrogates, depth bombs.
@pytest.mark.parametrize("value", [INTEGER_MAX + 1, -INTEGER_MAX - 1, 2**70, 1.5, 1.0, -0.0, math.nan, math.inf])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"a": {"b": [0, v]}}, lambda v: (v,)])
def test_s18_strict_json_has_no_floats_and_no_large_integers(value: Any, wrap: Any) -> None:
    with pytest.raises(BadJson):
        check_strict(wrap(value))


@pytest.mark.parametrize("value", [INTEGER_MAX, -INTEGER_MAX, 0, True, False, None, "1.5", ":1.5", "\0"])
def test_s18_strict_json_has_all_else(value: Any) -> None:
    check_strict({"a": [value]})


@pytest.mark.parametrize("value", ["\ud800", "a\udc00b", "\udc00\ud800"])
@pytest.mark.parametrize("encode", [encode_canonical, encode_strict])
def test_s18_lone_surrogates_are_not_encoded(value: str, encode: Any) -> None:
    for holder in (value, [value], {value: 1}, {"a": {"b": value}}):
        with pytest.raises(BadJson):
            encode(holder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_s18_nan_and_infinities_are_not_encoded(value: float) -> None:
    with pytest.raises(BadJson):
        encode_canonical({"a": value})


def test_s18_nesting_is_bounded_when_encoding() -> None:
    encode_canonical(nested(JSON_DEPTH_MAX))
    encode_canonical([0.5, nested(JSON_DEPTH_MAX - 1)])
    for depth in (JSON_DEPTH_MAX + 1, 10_000):
        with pytest.raises(BadJson):
            encode_canonical(nested(depth))
        with pytest.raises(BadJson):
            check_strict(nested(depth))


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 1_000, 1_024, 1_025, 1_000_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ("[", ""), ('[0,{"a":', "}]")])
def test_s18_nesting_is_bounded_when_reading(depth: int, start: str, end: str) -> None:
    with pytest.raises(NotJson):
        parse_json(start * depth + ("0" if end == "}" else "") + end * depth)


def test_the_depth_that_may_be_read_is_for_the_caller_to_say() -> None:
    assert parse_json("[" * JSON_DEPTH_MAX + "]" * JSON_DEPTH_MAX) == nested(JSON_DEPTH_MAX)
    assert parse_json('{"a":[1]}', depth_max=2) == {"a": [1]}
    assert parse_json("1", depth_max=0) == 1
    with pytest.raises(NotJson):
        parse_json('{"a":[1]}', depth_max=1)
    with pytest.raises(NotJson):
        parse_json("[]", depth_max=0)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{}x",
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":}',
        b"[01]",
        b"[1.]",
        b"[+1]",
        b"[0x10]",
        b"[.5]",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[nan]",
        b"[1e400]",
        b"[" + b"9" * 400 + b"]",
        b"[" + b"9" * 100_000 + b"]",
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'{"a":"\xe2\x82"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b'"\\ud800"',
        b'"\\ud800\\ud800"',
        b'{"\\udc00":1}',
        b'"\\x41"',
        b'"\n"',
        b'"\x00"',
        b"// comment\n{}",
    ],
)
def test_s18_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(NotJson):
        parse_json(text)


def test_s18_text_with_lone_surrogates_is_refused() -> None:
    with pytest.raises(NotJson):
        parse_json('{"a":"\ud800"}')


def test_s18_of_duplicate_keys_the_last_holds() -> None:
    assert parse_json('{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}
    # Also where the exact reader must be asked.
    assert parse_json(f'{{"a":1,"a":{2**64}}}') == {"a": 2**64}


def test_escaped_surrogate_pairs_and_nul_are_characters() -> None:
    assert parse_json(r'["\ud83d\ude00", "\u0000"]') == ["\U0001f600", "\0"]
    assert encode_canonical('\0\x1f\x7f\b\t\n\f\r"\\/') == rb'"\u0000\u001f' + b"\x7f" + rb'\b\t\n\f\r\"\\/"'


@given(st.binary(max_size=64))
def test_any_bytes_are_either_json_or_refused(text: bytes) -> None:
    try:
        value = parse_json(text)
    except NotJson:
        return
    assert repr(value) == repr(json.loads(text))
