"""The buckets of rate limits in Redis, so that several workers count together; without Redis each counts for itself."""

import asyncio
import math
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homeserver.core.clock import Clock
from homeserver.web.rate_limits import BucketStore, Rate

_log = structlog.get_logger()

KEY_PREFIX: Final = "heliograph:rate_limit:"

# One number per bucket, the millisecond at which it is full again, by the clock of Redis itself; it expires then.
# Returns the milliseconds to wait, or 0 if the request was taken.
TAKE_FROM_BUCKET: Final = """
local interval_ms = tonumber(ARGV[1])
local burst = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = full_at - now - interval_ms * (burst - 1)
if wait > 0.001 then
    return math.ceil(wait)
end
full_at = full_at + interval_ms
redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
return 0
"""


class RedisBuckets:
    """Buckets in Redis; while it is away, those of `fallback`."""

    def __init__(
        self,
        redis: Redis,
        *,
        fallback: BucketStore,
        clock: Clock,
        answer_seconds: float = 0.25,
        pause_seconds: float = 5.0,
    ) -> None:
        """Takes its means.

        Args:
            redis: the connection pool; its owner closes it.
            fallback: asked when Redis does not answer.
            clock: measures the pause.
            answer_seconds: how long Redis may take.
            pause_seconds: how long Redis is left alone after it failed.
        """
        self._script = redis.register_script(TAKE_FROM_BUCKET)
        self._fallback = fallback
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._pause_seconds = pause_seconds
        self._paused_until = -math.inf

    async def take(self, key: str, rate: Rate) -> float:
        """Takes one request out of a bucket; see `BucketStore`."""
        if self._clock.monotonic() < self._paused_until:
            return await self._fallback.take(key, rate)
        try:
            async with asyncio.timeout(self._answer_seconds):
                wait_ms = await self._script(keys=[KEY_PREFIX + key], args=[1000 / rate.per_second, rate.burst])
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = self._clock.monotonic() + self._pause_seconds
            _log.warning("rate limits are counted locally, Redis does not answer", reason=type(error).__name__)
            return await self._fallback.take(key, rate)
        return int(wait_ms) / 1000
