"""Fetches `/.well-known/matrix/server`, by which a domain says where its homeserver is.

https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from homeserver.core.canonical_json import parse_json
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, NotJson
from homeserver.core.ids import ServerName
from homeserver.net.errors import CallFailed
from homeserver.net.http_client import CallLimits, HttpClient, OutgoingRequest

PATH: Final = "/.well-known/matrix/server"
LIMITS: Final = CallLimits(total_seconds=12.0, connect_seconds=6.0, bytes_max=50 * 1024)
REDIRECTS_MAX: Final = 10
DEPTH_MAX: Final = 10

LIFETIME_SECONDS: Final = 86_400.0
LIFETIME_SECONDS_MIN: Final = 60.0
LIFETIME_SECONDS_MAX: Final = 2 * 86_400.0
REFUSAL_SECONDS: Final = 3_600.0

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,10})")
_DO_NOT_KEEP: Final = re.compile(r"(?:^|[\s,])(?:no-store|no-cache)(?:$|[\s,=])")


@dataclass(frozen=True, slots=True)
class WellKnown:
    """What a domain says.

    Attributes:
        delegated: where its homeserver is; None if it does not say so.
        lifetime_seconds: how long this may be believed.
    """

    delegated: ServerName | None
    lifetime_seconds: float


class WellKnownFetcher(Protocol):
    """Asks a domain, or what stands in for it in tests."""

    async def fetch(self, host: str) -> WellKnown | None:
        """What a domain says; None if it cannot be asked."""
        ...


class HttpWellKnown:
    """Over HTTPS on the usual port."""

    def __init__(self, *, http: HttpClient, clock: Clock, port: int = 443) -> None:
        self._http = http
        self._clock = clock
        self._origin_port = "" if port == 443 else f":{port}"

    async def fetch(self, host: str) -> WellKnown | None:
        """What a domain says; see `WellKnownFetcher`."""
        request = OutgoingRequest(
            method="GET", url=f"https://{host}{self._origin_port}{PATH}", redirects_max=REDIRECTS_MAX
        )
        try:
            answer = await self._http.fetch(request, LIMITS)
        except CallFailed:
            return None
        if answer.status >= 500:
            return None
        delegated = _delegated(answer.body) if answer.status == 200 else None
        if delegated is None:
            return WellKnown(None, REFUSAL_SECONDS)
        return WellKnown(delegated, lifetime_seconds(answer.headers, now_ms=self._clock.now_ms()))


def _delegated(body: bytes) -> ServerName | None:
    try:
        value = parse_json(body, depth_max=DEPTH_MAX)
        return ServerName.parse(value.get("m.server")) if isinstance(value, dict) else None
    except (NotJson, InvalidParam):
        return None


def lifetime_seconds(headers: Mapping[str, str], *, now_ms: int) -> float:
    """How long an answer may be kept by its own headers, within bounds; a day if they say nothing.

    Args:
        headers: by name in lower case.
        now_ms: the time.
    """
    wanted = LIFETIME_SECONDS
    control = headers.get("cache-control", "").lower()
    max_age = _MAX_AGE.search(control)
    if _DO_NOT_KEEP.search(control):
        wanted = 0.0
    elif max_age is not None:
        wanted = float(max_age[1])
    elif "expires" in headers:
        wanted = _expires_in(headers["expires"], now_ms=now_ms)
    return min(max(wanted, LIFETIME_SECONDS_MIN), LIFETIME_SECONDS_MAX)


def _expires_in(expires: str, *, now_ms: int) -> float:
    """Seconds until a date in the header's form; what is no date lies in the past (RFC 9111, 5.3)."""
    try:
        return parsedate_to_datetime(expires).timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return 0.0
