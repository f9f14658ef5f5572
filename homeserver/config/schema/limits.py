"""How often users and servers may ask, and what one request may take."""

from dataclasses import dataclass
from typing import Annotated

from homeserver.config.values import Count, Range


@dataclass(frozen=True, slots=True)
class RateConfig:
    """A rate: so many a second in the long run, and so many at once."""

    per_second: Annotated[float, Range(0.0001, 1_000_000)]
    """How many a second."""
    burst: Count
    """How many at once, after a pause."""


@dataclass(frozen=True, slots=True)
class RateLimitsConfig:
    """How often each user, or each address without a user, may ask. Written `{per_second: 0.2, burst: 5}`."""

    enabled: bool = True
    """Whether there are limits."""
    read: RateConfig = RateConfig(per_second=50, burst=200)
    """Reading that costs something: searches, directories, history."""
    write: RateConfig = RateConfig(per_second=20, burst=100)
    """Changes that are not messages: receipts, typing, account data, keys."""
    message: RateConfig = RateConfig(per_second=5, burst=50)
    """Sending events."""
    registration: RateConfig = RateConfig(per_second=0.1, burst=5)
    """Making accounts, by address."""
    login: RateConfig = RateConfig(per_second=0.2, burst=10)
    """Logging in, by address and by account."""
    join: RateConfig = RateConfig(per_second=0.5, burst=20)
    """Joining rooms."""
    invite: RateConfig = RateConfig(per_second=0.3, burst=20)
    """Inviting users."""
    create_room: RateConfig = RateConfig(per_second=0.1, burst=10)
    """Creating and upgrading rooms."""
    report: RateConfig = RateConfig(per_second=0.1, burst=10)
    """Reporting rooms, events and users."""
    media: RateConfig = RateConfig(per_second=50, burst=500)
    """Downloads and thumbnails."""
    federation: RateConfig = RateConfig(per_second=50, burst=500)
    """Requests of other servers, by server."""


@dataclass(frozen=True, slots=True)
class ByteRateConfig:
    """A rate of bytes: so many a second in the long run, and so many at once."""

    per_second_bytes: Count
    """How many bytes a second."""
    burst_bytes: Count
    """How many bytes at once, after a pause."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds on what one request may take."""

    sync_timeout_ms_max: Annotated[int, Range(0, 600_000)] = 60_000
    """The longest that a sync waits for something new, whatever the client asks."""
    request_timeout_ms: Count = 120_000
    """How long a client may take to send its request."""
    keep_alive_ms: Count = 75_000
    """How long an idle connection is kept."""
    shutdown_timeout_ms: Annotated[int, Range(0, 600_000)] = 15_000
    """How long requests may still run after SIGTERM."""
