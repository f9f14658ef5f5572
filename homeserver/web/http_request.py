"""Reads what an ASGI server says of a request: its path, headers, the other end of its connection."""

import re
import secrets
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final
from urllib.parse import quote

Scope = Mapping[str, Any]
"""What an ASGI server says of a connection."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class RequestIds:
    """Names for requests, by which the lines of a log and a client's report are brought together."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._count = count(1)

    def choose(self, proposed: str | None) -> str:
        """The id that a proxy or client proposes, if it is harmless, else a new one."""
        if proposed is not None and _REQUEST_ID.fullmatch(proposed):
            return proposed
        return f"{self._prefix}-{next(self._count):x}"


def raw_path_of(scope: Scope) -> str:
    """The path as it came, percent-encoded; without the origin that a request to a proxy names (absolute form)."""
    raw: bytes | None = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    if path.startswith("/"):
        return path
    origin, separator, rest = path.partition("://")
    return rest[rest.find("/") :] if separator and origin.isalpha() and "/" in rest else path


def headers_of(scope: Scope) -> dict[str, str]:
    """Headers by name in lower case; those that stand several times are joined with commas."""
    raw_headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def peer_of(scope: Scope) -> str | None:
    """The address of the connection's other end; None for a socket of the file system."""
    client = scope.get("client")
    return client[0] if client else None
