"""What workers share through Redis; loaded only where there is one."""

from contextlib import AsyncExitStack

from redis.asyncio import Redis

from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.runtime.sharing import Sharing
from homeserver.services.accounts.redis_attempts import RedisAttemptCounts
from homeserver.services.media.redis_byte_buckets import RedisByteBuckets
from homeserver.web.redis_rate_limits import RedisBuckets
from storage.bus.redis import RedisBus


def share(config: Config, clock: Clock, stack: AsyncExitStack, *, fallback: Sharing) -> Sharing:
    """The same by Redis, which is connected to when it is used; while it is away, counts are those of `fallback`."""
    assert config.redis.url is not None, "There is no Redis"
    redis: Redis = Redis.from_url(config.redis.url)
    stack.push_async_callback(redis.aclose)
    return Sharing(
        bus=RedisBus(url=config.redis.url, channel=f"heliograph:{config.server_name}", clock=clock),
        buckets=RedisBuckets(redis, fallback=fallback.buckets, clock=clock),
        attempts=RedisAttemptCounts(redis, fallback=fallback.attempts, clock=clock),
        byte_buckets=RedisByteBuckets(redis, fallback=fallback.byte_buckets, clock=clock),
    )
