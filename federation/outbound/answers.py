"""Reads what other servers answer: JSON that nobody vouches for, and errors.

https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.canonical_json import parse_json
from homeserver.core.errors import NotJson, RemoteRefused
from homeserver.core.ids import ServerName

DEPTH_MAX: Final = 100
ERROR_BYTES_MAX: Final = 65_536
IN_LOOP_BYTES_MAX: Final = 65_536
"""What is larger is parsed in a thread: it takes longer than the event loop should be held."""

UNKNOWN: Final = "M_UNKNOWN"
LIMIT_EXCEEDED_STATUS: Final = 429

_TEXT_CHARACTERS_MAX: Final = 500
_RETRY_AFTER_MS: Final = 10_000


async def parse_answer(body: bytes) -> Any:
    """Parses the body of an answer.

    Raises:
        NotJson: it is no JSON, or nested too deeply.
    """
    if len(body) <= IN_LOOP_BYTES_MAX:
        return parse_json(body, depth_max=DEPTH_MAX)
    return await asyncio.to_thread(parse_json, body, depth_max=DEPTH_MAX)


def parse_refusal(destination: ServerName, *, status: int, body: bytes) -> RemoteRefused:
    """The error that a server has answered with; `M_UNKNOWN` if it is not in Matrix's form."""
    try:
        said = parse_json(body, depth_max=DEPTH_MAX)
    except NotJson:
        said = None
    members: Mapping[str, Any] = said if isinstance(said, dict) else {}
    errcode, text = members.get("errcode"), members.get("error")
    known = isinstance(errcode, str) and 0 < len(errcode) <= 255 and errcode.isascii() and errcode.isprintable()
    message = text[:_TEXT_CHARACTERS_MAX] if isinstance(text, str) else f"The status {status}"
    return RemoteRefused(
        f"{destination} answered: {message}",
        remote_errcode=str(errcode) if known else UNKNOWN,
        status=status,
        extra=_extra(members),
    )


def retry_after_ms(refused: RemoteRefused, headers: Mapping[str, str]) -> int:
    """How long a server that has had too many requests (429) wants to be left alone."""
    said = refused.extra.get("retry_after_ms")
    if isinstance(said, int):
        return said
    seconds = headers.get("retry-after", "")
    return int(seconds) * 1000 if seconds.isascii() and seconds.isdigit() and len(seconds) < 10 else _RETRY_AFTER_MS


def _extra(members: Mapping[str, Any]) -> dict[str, Any]:
    """What else of an error's body is of use to whoever asked."""
    extra: dict[str, Any] = {}
    room_version, retry_after = members.get("room_version"), members.get("retry_after_ms")
    if isinstance(room_version, str) and len(room_version) <= 32:
        extra["room_version"] = room_version
    if type(retry_after) is int and retry_after >= 0:
        extra["retry_after_ms"] = retry_after
    return extra
