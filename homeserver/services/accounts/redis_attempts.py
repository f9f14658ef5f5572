"""The counts of wrong passwords in Redis, so that workers count together; without Redis each counts for itself."""

import asyncio
import math
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homeserver.config.schema import RateConfig
from homeserver.core.clock import Clock
from homeserver.services.accounts.attempts import AttemptCounts

_log = structlog.get_logger()

KEY_PREFIX: Final = "heliograph:login_attempts:"
ANSWER_SECONDS: Final = 0.25
PAUSE_SECONDS: Final = 5.0

# One number per subject: the millisecond, by the clock of Redis, at which nothing is left of its attempts. A cost of
# one interval takes an attempt, a negative one gives it back. Returns the milliseconds to wait, or 0.
COUNT_ATTEMPT: Final = """
local interval_ms = tonumber(ARGV[1])
local burst = tonumber(ARGV[2])
local cost_ms = tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local empty_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = empty_at - now - interval_ms * (burst - 1)
if cost_ms > 0 and wait > 0.001 then
    return math.ceil(wait)
end
empty_at = empty_at + cost_ms
if empty_at <= now then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], string.format('%.3f', empty_at), 'PX', math.ceil(empty_at - now))
end
return 0
"""


class RedisAttemptCounts:
    """Counts in Redis; while it is away, those of `fallback`."""

    def __init__(self, redis: Redis, *, fallback: AttemptCounts, clock: Clock) -> None:
        """Takes its means; the owner of `redis` closes it."""
        self._script = redis.register_script(COUNT_ATTEMPT)
        self._fallback = fallback
        self._clock = clock
        self._paused_until = -math.inf

    async def take(self, subject: str, rate: RateConfig) -> float:
        """Counts an attempt; see `AttemptCounts`."""
        wait_ms = await self._count(subject, rate, cost_ms=1000 / rate.per_second)
        return await self._fallback.take(subject, rate) if wait_ms is None else wait_ms / 1000

    async def give_back(self, subject: str, rate: RateConfig) -> None:
        """Takes one counted attempt back."""
        if await self._count(subject, rate, cost_ms=-1000 / rate.per_second) is None:
            await self._fallback.give_back(subject, rate)

    async def _count(self, subject: str, rate: RateConfig, *, cost_ms: float) -> int | None:
        """The milliseconds to wait; None if Redis does not answer."""
        if self._clock.monotonic() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                wait_ms = await self._script(
                    keys=[KEY_PREFIX + subject], args=[1000 / rate.per_second, rate.burst, cost_ms]
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
            _log.warning("login attempts are counted locally, Redis does not answer", reason=type(error).__name__)
            return None
        return int(wait_ms)
