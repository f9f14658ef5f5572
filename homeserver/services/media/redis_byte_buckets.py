"""The buckets of rates in bytes in Redis, so that workers count together; without Redis each counts for itself."""

import asyncio
import math
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homeserver.core.clock import Clock
from homeserver.services.media.byte_rates import ByteBuckets

_log = structlog.get_logger()

KEY_PREFIX: Final = "heliograph:bytes:"
ANSWER_SECONDS: Final = 0.25
PAUSE_SECONDS: Final = 5.0

# One number per bucket, the millisecond at which it is empty, by the clock of Redis itself; it expires then. Returns
# the milliseconds until then.
ADD_TO_BUCKET: Final = """
local added_ms = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local empty_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
if added_ms > 0 then
    empty_at = empty_at + added_ms
    redis.call('SET', KEYS[1], string.format('%.3f', empty_at), 'PX', math.ceil(empty_at - now))
end
return string.format('%.3f', empty_at - now)
"""


class RedisByteBuckets:
    """Buckets in Redis; while it is away, those of `fallback`."""

    def __init__(self, redis: Redis, *, fallback: ByteBuckets, clock: Clock) -> None:
        """Takes its means; the owner of `redis` closes it."""
        self._script = redis.register_script(ADD_TO_BUCKET)
        self._fallback = fallback
        self._clock = clock
        self._paused_until = -math.inf

    async def add(self, owner: str, size_bytes: int, *, bytes_per_second: int) -> float:
        """Adds to a bucket; see `ByteBuckets`."""
        if self._clock.monotonic() < self._paused_until:
            return await self._fallback.add(owner, size_bytes, bytes_per_second=bytes_per_second)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                left_ms = await self._script(keys=[KEY_PREFIX + owner], args=[size_bytes * 1000 / bytes_per_second])
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
            _log.warning("bytes are counted locally, Redis does not answer", reason=type(error).__name__)
            return await self._fallback.add(owner, size_bytes, bytes_per_second=bytes_per_second)
        return float(left_ms) * bytes_per_second / 1000
