"""Reading and writing the frames of WebSockets."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.web.answer import Answer
from homeserver.web.websocket_frames import (
    AckFrame,
    AuthenticateFrame,
    CallFrame,
    MalformedFrame,
    PingFrame,
    PongFrame,
    SubscribeFrame,
    UnsubscribeFrame,
    answer_frame,
    error_frame,
    parse_frame,
    sync_frame,
)


def parse(frame: Any) -> Any:
    """Reads a frame given as a value."""
    return parse_frame(orjson.dumps(frame))


def test_calls_by_operation() -> None:
    frame = {"id": 1, "operation": "send_message", "path": {"room_id": "!r"}, "query": {"ts": 5}, "body": {"a": 1}}
    assert parse(frame) == CallFrame(
        id=1,
        operation="send_message",
        method=None,
        path="",
        path_parameters={"room_id": "!r"},
        query={"ts": ["5"]},
        body=b'{"a":1}',
        content_type=None,
    )
    assert parse({"id": "x", "operation": "a"}).body == b""
    assert parse({"id": "x", "operation": "a", "body": None}).body == b"null"


def test_calls_by_method_and_path() -> None:
    frame = parse({"id": "a", "method": "put", "path": "/x?y=1", "query": {"z": [True, "w"]}})
    assert (frame.operation, frame.method, frame.path) == (None, "PUT", "/x?y=1")
    assert frame.query == {"z": ["true", "w"]}


def test_bytes_in_base64() -> None:
    frame = parse({"id": 1, "operation": "upload", "body_base64": "AP8=", "content_type": "image/png"})
    assert (frame.body, frame.content_type) == (b"\0\xff", "image/png")
    assert parse({"id": 1, "operation": "upload", "body_base64": ""}).body == b""


def test_the_transports_own_frames() -> None:
    assert parse({"id": 1, "operation": "authenticate", "access_token": "t"}) == AuthenticateFrame(1, "t")
    assert parse({"id": 1, "operation": "subscribe_sync", "query": {"since": "s"}, "window": 2}) == SubscribeFrame(
        1, {"since": ["s"]}, 2
    )
    assert parse({"id": 1, "operation": "subscribe_sync"}) == SubscribeFrame(1, {}, 1)
    assert parse({"id": 1, "operation": "unsubscribe"}) == UnsubscribeFrame(1)
    assert parse({"ack": "s1"}) == AckFrame(None, "s1")
    assert parse({"id": 1, "ack": "s1"}) == AckFrame(1, "s1")
    assert parse({"ping": [1]}) == PingFrame([1])
    assert isinstance(parse({"pong": 1}), PongFrame)


def test_tokens_in_queries_are_dropped() -> None:
    assert parse({"id": 1, "operation": "a", "query": {"access_token": "t", "b": "c"}}).query == {"b": ["c"]}


@pytest.mark.parametrize(
    ("frame", "errcode"),
    [
        ([], "M_BAD_JSON"),
        ("x", "M_BAD_JSON"),
        ({}, "M_MISSING_PARAM"),
        ({"operation": "a"}, "M_MISSING_PARAM"),
        ({"id": None, "operation": "a"}, "M_BAD_JSON"),
        ({"id": True, "operation": "a"}, "M_BAD_JSON"),
        ({"id": 1.0, "operation": "a"}, "M_BAD_JSON"),
        ({"id": 2**53, "operation": "a"}, "M_BAD_JSON"),
        ({"id": "x" * 256, "operation": "a"}, "M_BAD_JSON"),
        ({"id": {}, "operation": "a"}, "M_BAD_JSON"),
        ({"id": 1}, "M_MISSING_PARAM"),
        ({"id": 1, "operation": 1}, "M_BAD_JSON"),
        ({"id": 1, "operation": ""}, "M_BAD_JSON"),
        ({"id": 1, "method": "GET"}, "M_MISSING_PARAM"),
        ({"id": 1, "method": 1, "path": "/"}, "M_BAD_JSON"),
        ({"id": 1, "method": "GET", "path": {}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "path": "/x"}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "path": {"b": 1}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "path": {"b": "\0"}}, "M_INVALID_PARAM"),
        ({"id": 1, "operation": "a", "query": []}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "query": {"b": None}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "query": {"b": 1.5}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "query": {"b": [[]]}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "query": {"b": "\0"}}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "body_base64": "?"}, "M_BAD_JSON"),
        ({"id": 1, "operation": "a", "body_base64": 1}, "M_BAD_JSON"),
        ({"id": 1, "operation": "authenticate"}, "M_MISSING_PARAM"),
        ({"id": 1, "operation": "authenticate", "access_token": ""}, "M_BAD_JSON"),
        ({"id": 1, "operation": "subscribe_sync", "window": 0}, "M_INVALID_PARAM"),
        ({"id": 1, "operation": "subscribe_sync", "window": 9}, "M_INVALID_PARAM"),
        ({"id": 1, "operation": "subscribe_sync", "window": True}, "M_INVALID_PARAM"),
        ({"operation": "unsubscribe"}, "M_MISSING_PARAM"),
        ({"ack": 1}, "M_BAD_JSON"),
    ],
)
def test_malformed_frames(frame: Any, errcode: str) -> None:
    with pytest.raises(MalformedFrame) as raised:
        parse(frame)
    assert raised.value.error.errcode == errcode


@pytest.mark.parametrize("text", [b"", b"{", b'"\xff"', b"[" * 1000, b'{"id":1,"operation":"a","body":"\\ud800"}'])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(MalformedFrame) as raised:
        parse_frame(text)
    assert raised.value.error.errcode == "M_NOT_JSON"


def test_the_id_is_kept_where_it_can_be_read() -> None:
    with pytest.raises(MalformedFrame) as raised:
        parse({"id": "a", "operation": 1})
    assert raised.value.id == "a"
    assert orjson.loads(error_frame(raised.value.id, raised.value.error))["id"] == "a"


members = ["id", "operation", "method", "path", "query", "body", "body_base64", "access_token", "window", "ack", "ping"]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
operations = st.sampled_from(["authenticate", "subscribe_sync", "unsubscribe", "sync"])


@given(st.dictionaries(st.sampled_from(members), values), st.none() | operations)
def test_no_frame_does_worse_than_an_error(frame: dict[str, Any], operation: str | None) -> None:
    if operation is not None:
        frame["operation"] = operation
    try:
        parsed = parse(frame)
    except MalformedFrame as malformed:
        error_frame(malformed.id, malformed.error).encode()
    else:
        assert getattr(parsed, "id", frame.get("id")) == frame.get("id")


def test_answers() -> None:
    json = Answer(200, b'{"a":1}', value={"a": 1})
    assert orjson.loads(answer_frame(1, json, b'{"a":1}')) == {"id": 1, "status": 200, "body": {"a": 1}}
    limited = Answer(429, b"{}", headers={"Retry-After": "1"})
    assert orjson.loads(answer_frame("x", limited, b"{}"))["headers"] == {"Retry-After": "1"}
    image = Answer(200, b"", content_type="image/png")
    assert orjson.loads(answer_frame(1, image, b"\0\xff")) == {
        "id": 1,
        "status": 200,
        "content_type": "image/png",
        "body_base64": "AP8=",
    }
    assert orjson.loads(sync_frame(1, b'{"next_batch":"s"}')) == {"id": 1, "sync": {"next_batch": "s"}}
