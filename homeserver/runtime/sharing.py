"""How the workers of a server wake one another and count together: in memory, or by Redis where there are several."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module

from homeserver.config.schema import Config
from homeserver.core.clock import Clock
from homeserver.services.accounts.attempts import AttemptCounts, LocalAttemptCounts
from homeserver.services.media.byte_rates import ByteBuckets, LocalByteBuckets
from homeserver.web.rate_limits import BucketStore, LocalBuckets
from storage.bus.base import Bus
from storage.bus.memory import MemoryBus


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What one worker has for it.

    Attributes:
        bus: carries wakes.
        buckets: count requests.
        attempts: count wrong passwords.
        byte_buckets: count bytes of media.
    """

    bus: Bus
    buckets: BucketStore
    attempts: AttemptCounts
    byte_buckets: ByteBuckets


def compose_sharing(config: Config, clock: Clock, stack: AsyncExitStack) -> Sharing:
    """What the configuration asks for; the stack closes what is opened for it."""
    local = Sharing(
        bus=MemoryBus(),
        buckets=LocalBuckets(clock),
        attempts=LocalAttemptCounts(clock),
        byte_buckets=LocalByteBuckets(clock),
    )
    if config.redis.url is None:
        return local
    # Its client takes 7 MiB, which a single worker can do without.
    shared: Sharing = import_module("homeserver.runtime.redis_sharing").share(config, clock, stack, fallback=local)
    return shared
