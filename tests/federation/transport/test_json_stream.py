"""Parsing a large answer as it comes, and the other small parts of the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import json_stream
from federation.wire.allowed_servers import AllowedServers
from federation.wire.json_stream import LargeObjectParser
from federation.wire.paths import federation_path, with_query
from homeserver.core.errors import NotJson
from homeserver.core.ids import ServerName
from homeserver.web.routing import decode_component, parse_query

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=30,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=6)


def parse(text: bytes, step: int) -> dict[str, Any]:
    parser = LargeObjectParser()
    for start in range(0, len(text), step):
        parser.feed(text[start : start + step])
    return parser.finish()


@given(objects, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_the_outcome_is_that_of_parsing_at_once(
    value: dict[str, Any], step: int, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
    assert parse(text, step) == json.loads(text)


@given(st.text('{}[]",:\\ 1atrue', max_size=30), st.integers(1, 5))
def test_nothing_is_taken_that_is_no_json(text: str, step: int) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert parse(text.encode(), step) == expected
    else:
        with pytest.raises(NotJson):
            parse(text.encode(), step)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"a":[1,2}',
        b'{"a":[1 2]}',
        b'{"a":1,}',
        b'{"a":[1,]}',
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"a":[{"b":"\xff"}]}',
        b'{"a":[' + b"[" * 150 + b"]" * 150 + b"]}",
        b'{"a":["' + b"x" * json_stream.UNIT_BYTES_MAX + b'"]}',
        b'{"a":"' + b"x" * 3 * json_stream.UNIT_BYTES_MAX,
        b'{"a":[' + b"[" * 3 * json_stream.UNIT_BYTES_MAX,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_wrong_or_too_large_is_refused(text: bytes) -> None:
    with pytest.raises(NotJson):
        parse(text, 100_000)


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "ENTRIES_MAX", 10)
    assert parse(b'{"a":[1,2,3,4,5],"b":[1,2,3,4,5]}', 3)
    with pytest.raises(NotJson):
        parse(b'{"a":[1,2,3,4,5],"b":[1,2,3,4,5,6]}', 3)


@given(st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=4))
def test_paths_come_back_as_they_were(segments: list[str]) -> None:
    path = federation_path("v1", *segments)
    assert path.isascii()
    read = path.removeprefix("/_matrix/federation/v1/").split("/")
    nul_free = ["\0" not in segment for segment in segments]
    for segment, encoded, good in zip(segments, read, nul_free, strict=True):
        assert not good or decode_component(encoded) == segment


@given(st.dictionaries(st.text("abc&=+% äé/", min_size=1, max_size=5), st.lists(st.text("abc&=+% äé/"), min_size=1)))
def test_queries_come_back_as_they_were(query: dict[str, list[str]]) -> None:
    encoded = with_query("/path", query)
    assert parse_query(encoded.partition("?")[2]) == query


def test_which_servers_are_talked_with() -> None:
    def allows(server: str, **lists: Any) -> bool:
        return AllowedServers(**({"allowed": None, "denied": ()} | lists)).allows(ServerName.parse(server))

    assert allows("a.example")
    assert not allows("a.example", enabled=False)
    assert not allows("A.example:8448", denied=["a.EXAMPLE"])
    assert not allows("a.example:8448", denied=["a.example:8448"])
    assert allows("a.example:8449", denied=["a.example:8448"])
    assert not allows("x.evil.example", denied=["*.evil.example"])
    assert allows("evil.example", denied=["*.evil.example"])
    assert allows("a.example", allowed=["a.example"])
    assert not allows("b.example", allowed=["a.example"])
    assert not allows("b.example", allowed=[])
    assert not allows("a.example", allowed=["a.example"], denied=["a.example"])
