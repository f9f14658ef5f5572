"""An endpoint's response in the form in which it is sent: encoded once, for whatever transport."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from homeserver.web.endpoint import Json, Response
from homeserver.web.errors import error_response

_JSON_TYPE: Final = "application/json"
_BYTES_TYPE: Final = "application/octet-stream"
_WRONG_IN_HEADER: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
STATUS_CLIENT_GONE: Final = 499


@dataclass(frozen=True, slots=True)
class Answer:
    """What a transport sends.

    Attributes:
        status: the HTTP status.
        body: the encoded body.
        content_type: its media type.
        headers: further headers, checked to be sendable.
        value: the JSON behind the body; None if the endpoint answered with bytes.
    """

    status: int
    body: bytes | AsyncIterator[bytes]
    content_type: str = _JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    value: Json = None

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON, complete in memory."""
        is_complete = isinstance(self.body, bytes) and bool(self.body)
        return is_complete and self.content_type.partition(";")[0] == _JSON_TYPE

    @property
    def size_bytes(self) -> int | None:
        """The size of the body, if it is known before it is sent."""
        return len(self.body) if isinstance(self.body, bytes) else None

    @property
    def errcode(self) -> str | None:
        """The errcode, if this is an error."""
        return self.value.get("errcode") if self.status >= 400 and isinstance(self.value, dict) else None


CLIENT_GONE: Final = Answer(STATUS_CLIENT_GONE, b"")
"""Nobody waits for this."""


def encode_response(response: Response) -> Answer:
    """Encodes a response.

    Raises:
        TypeError, ValueError: it cannot be sent: no JSON, or a header with control characters. The endpoint's mistake.
    """
    headers = response.headers
    for name, value in headers.items():
        if _WRONG_IN_HEADER.search(value):
            raise ValueError(f"the header {name} holds a character that cannot be sent")
    body = response.body
    if isinstance(body, bytes | AsyncIterator):
        content_type = _BYTES_TYPE
        others = {}
        for name, value in headers.items():
            if name.lower() == "content-type":
                content_type = value
            else:
                others[name] = value
        return Answer(response.status, body, content_type, others)
    return Answer(response.status, encode_json(body), headers=headers, value=body)


def encode_error(error: Exception) -> Answer:
    """The answer for whatever an endpoint raised."""
    return encode_response(error_response(error))


def encode_json(value: Any) -> bytes:
    """Encodes JSON; ids may stand as keys.

    Raises:
        TypeError: it is no JSON.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        # Ids are subclasses of str, which orjson takes as keys only with this option; that is slower for all others.
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
