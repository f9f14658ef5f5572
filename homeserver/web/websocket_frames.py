"""The frames of the WebSocket transport: what a client sends, checked and typed, and what it is sent.

The protocol is described in `docs/websocket.md`.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import BadJson, InvalidParam, MatrixError, MissingParam
from homeserver.web.answer import Answer, encode_json
from homeserver.web.body import JSON_DEPTH_MAX

FrameId: TypeAlias = str | int
Query: TypeAlias = Mapping[str, list[str]]

AUTHENTICATE: Final = "authenticate"
SUBSCRIBE_SYNC: Final = "subscribe_sync"
UNSUBSCRIBE: Final = "unsubscribe"
OWN_OPERATIONS: Final = frozenset({AUTHENTICATE, SUBSCRIBE_SYNC, UNSUBSCRIBE})
"""Operations of the transport itself; no endpoint may have such a name."""

WINDOW_MAX: Final = 8
_ID_CHARACTERS_MAX: Final = 255
_DEPTH_OF_BODY: Final = 1


@dataclass(frozen=True, slots=True)
class CallFrame:
    """A request to an endpoint, named by its operation, or by method and path."""

    id: FrameId
    operation: str | None
    method: str | None
    path: str
    path_parameters: Mapping[str, str]
    query: Query
    body: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class AuthenticateFrame:
    """Shows an access token."""

    id: FrameId
    access_token: str


@dataclass(frozen=True, slots=True)
class SubscribeFrame:
    """Asks for syncs to be pushed."""

    id: FrameId
    query: Query
    window: int


@dataclass(frozen=True, slots=True)
class UnsubscribeFrame:
    """Ends a subscription, named by the id under which it was begun."""

    id: FrameId


@dataclass(frozen=True, slots=True)
class AckFrame:
    """Says that a pushed sync was taken in; without an id, of whatever subscription."""

    id: FrameId | None
    next_batch: str


@dataclass(frozen=True, slots=True)
class PingFrame:
    """Asks for a pong."""

    ping: Any


@dataclass(frozen=True, slots=True)
class PongFrame:
    """Answers a ping; that it came is all it says."""


Frame: TypeAlias = CallFrame | AuthenticateFrame | SubscribeFrame | UnsubscribeFrame | AckFrame | PingFrame | PongFrame


class MalformedFrame(Exception):
    """A frame that cannot be understood.

    Attributes:
        error: what is wrong with it.
        id: its id, if so much could be read.
    """

    def __init__(self, error: MatrixError, frame_id: FrameId | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.id = frame_id


def parse_frame(text: bytes) -> Frame:
    """Reads a text frame.

    Raises:
        MalformedFrame: it is no JSON object, or not one that the protocol knows.
    """
    frame_id: FrameId | None = None
    try:
        frame = parse_json(text, depth_max=JSON_DEPTH_MAX + _DEPTH_OF_BODY)
        if not isinstance(frame, dict):
            raise BadJson("A frame must be an object")
        if "id" in frame:
            frame_id = _parse_id(frame["id"])
        return _parse(frame, frame_id)
    except MatrixError as error:
        raise MalformedFrame(error, frame_id) from None


def _parse(frame: dict[str, Any], frame_id: FrameId | None) -> Frame:
    if "ack" in frame:
        return AckFrame(frame_id, _text(frame, "ack"))
    if "ping" in frame:
        return PingFrame(frame["ping"])
    if "pong" in frame:
        return PongFrame()
    if frame_id is None:
        raise MissingParam("A frame needs an id")
    operation = None if frame.get("operation") is None else _text(frame, "operation")
    if operation == AUTHENTICATE:
        return AuthenticateFrame(frame_id, _text(frame, "access_token"))
    if operation == UNSUBSCRIBE:
        return UnsubscribeFrame(frame_id)
    query = _parse_query(frame.get("query", {}))
    if operation == SUBSCRIBE_SYNC:
        return SubscribeFrame(frame_id, query, _parse_window(frame.get("window", 1)))
    return _parse_call(frame, frame_id, operation, query)


def _parse_call(frame: dict[str, Any], frame_id: FrameId, operation: str | None, query: Query) -> CallFrame:
    method, path, path_parameters = None, "", {}
    if operation is None:
        method, path = _text(frame, "method").upper(), _text(frame, "path")
    else:
        path_parameters = frame.get("path", {})
        if not isinstance(path_parameters, dict) or not all(isinstance(v, str) for v in path_parameters.values()):
            raise BadJson("The path of an operation must be an object of strings")
        if any("\0" in value for value in path_parameters.values()):
            raise InvalidParam("The path holds a NUL character")
    content_type = None
    if "body_base64" in frame:
        body = _decode_base64(_text(frame, "body_base64"))
        content_type = _text(frame, "content_type") if "content_type" in frame else None
    else:
        body = encode_json(frame["body"]) if "body" in frame else b""
    return CallFrame(frame_id, operation, method, path, path_parameters, query, body, content_type)


def _parse_id(value: object) -> FrameId:
    if isinstance(value, str) and len(value) <= _ID_CHARACTERS_MAX:
        return value
    if type(value) is int and abs(value) < 2**53:
        return value
    raise BadJson(f"The id of a frame must be an integer or a string of at most {_ID_CHARACTERS_MAX} characters")


def _parse_window(value: object) -> int:
    if type(value) is int and 1 <= value <= WINDOW_MAX:
        return value
    raise InvalidParam(f"The window must be between 1 and {WINDOW_MAX}")


def _parse_query(query: object) -> Query:
    """The query parameters in the form in which HTTP brings them: lists of strings."""
    if not isinstance(query, dict):
        raise BadJson("The query must be an object")
    return {
        name: [_query_text(item) for item in (value if isinstance(value, list) else [value])]
        for name, value in query.items()
        if name != "access_token"
    }


def _query_text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str() if "\0" not in value:
            return value
        case _:
            raise BadJson("A query parameter must be a string, an integer, a boolean, or a list of these")


def _text(frame: dict[str, Any], name: str) -> str:
    if name not in frame:
        raise MissingParam(f"The frame has no {name}")
    value = frame[name]
    if not isinstance(value, str) or (not value and name != "body_base64"):
        raise BadJson(f"The frame's {name} must be a string")
    return value


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadJson("The frame's body_base64 is no base64") from None


def answer_frame(frame_id: FrameId, answer: Answer, content: bytes) -> str:
    """The frame that answers a request.

    Args:
        frame_id: the request's.
        answer: status, type and headers.
        content: the whole body.
    """
    frame: dict[str, Any] = {"id": frame_id, "status": answer.status}
    if answer.headers:
        frame["headers"] = dict(answer.headers)
    if answer.is_json:
        frame["body"] = orjson.Fragment(content)
    else:
        frame["content_type"] = answer.content_type
        frame["body_base64"] = base64.b64encode(content).decode()
    return orjson.dumps(frame).decode()


def sync_frame(frame_id: FrameId, sync: bytes) -> str:
    """The frame that pushes a sync, given as JSON."""
    return orjson.dumps({"id": frame_id, "sync": orjson.Fragment(sync)}).decode()


def error_frame(frame_id: FrameId | None, error: MatrixError) -> str:
    """The frame that complains of another frame."""
    frame: dict[str, Any] = {} if frame_id is None else {"id": frame_id}
    return orjson.dumps({**frame, "error": error.body()}).decode()
