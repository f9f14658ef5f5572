"""Rate limits by token bucket: so many requests per second of one class and one caller, and a burst above that.

A bucket is kept as one number, the time at which it will be full again (the "generic cell rate algorithm"): a request
is let through if that time is less than a burst away, and moves it by the interval of one request. A bucket that is
full again says nothing and can be forgotten.

https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
"""

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from homeserver.core.clock import Clock
from homeserver.core.errors import LimitExceeded
from homeserver.core.requester import Requester
from homeserver.web.client_address import rate_limit_address
from homeserver.web.endpoint import RateLimit

BUCKETS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may be done.

    Attributes:
        per_second: how many requests in the long run; 0 means without limit.
        burst: how many at once after a pause, at least 1.
    """

    per_second: float
    burst: int


UNLIMITED: Final = Rate(per_second=0, burst=1)

RateOverride = Callable[[Requester, RateLimit], Awaitable[Rate | None]]
"""The rate that an administrator has set for a user; None if the class's own holds."""


class BucketStore(Protocol):
    """Where buckets are kept."""

    async def take(self, key: str, rate: Rate) -> float:
        """Takes one request out of a bucket.

        Returns:
            0 if it was taken, else the seconds until one could be.
        """
        ...


class LocalBuckets:
    """Buckets of this process, so many at most; those that have not been used for longest go first."""

    def __init__(self, clock: Clock, *, buckets_max: int = BUCKETS_MAX) -> None:
        self._clock = clock
        self._buckets_max = buckets_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    async def take(self, key: str, rate: Rate) -> float:
        """Takes one request out of a bucket; see `BucketStore`."""
        now = self._clock.monotonic()
        interval = 1 / rate.per_second
        full_at = max(self._full_at.get(key, now), now)
        wait_seconds = full_at - now - interval * (rate.burst - 1)
        if wait_seconds > 1e-9:  # what the rounding of two sums may differ by
            return wait_seconds
        self._full_at[key] = full_at + interval
        self._full_at.move_to_end(key)
        self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drops a few buckets that are full again, and what is above the bound."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._buckets_max:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return


class RateLimits:
    """Applies the rates to callers: to the user, to the other server, or else to the address."""

    def __init__(
        self,
        *,
        store: BucketStore,
        rates: Mapping[RateLimit, Rate],
        enabled: bool = True,
        override: RateOverride | None = None,
    ) -> None:
        """Takes its settings.

        Args:
            store: where the buckets are.
            rates: the rate of each class; classes that are absent have no limit.
            enabled: False lets everything through.
            override: asked for each limited request of a user.
        """
        self._store = store
        self._rates = dict(rates) if enabled else {}
        self._override = override

    async def check(
        self, rate_limit: RateLimit | None, *, requester: Requester | None, origin: str | None, ip: str
    ) -> None:
        """Counts one request.

        Args:
            rate_limit: its class; None is never limited.
            requester: the user who asks, if it is one.
            origin: the server that asks, if it is one.
            ip: the caller's address.

        Raises:
            LimitExceeded: there were too many.
        """
        rate = None if rate_limit is None else self._rates.get(rate_limit)
        if rate is None or rate_limit is None:
            return
        if requester is not None:
            key = f"{rate_limit.value} {requester.user_id}"
            if self._override is not None:
                rate = await self._override(requester, rate_limit) or rate
        elif origin is not None:
            key = f"{rate_limit.value} {origin}"
        else:
            key = f"{rate_limit.value} {rate_limit_address(ip)}"
        if rate.per_second <= 0:
            return
        wait_seconds = await self._store.take(key, rate)
        if wait_seconds > 0:
            raise LimitExceeded(retry_after_ms=math.ceil(wait_seconds * 1000))
