"""The bus of a server with several processes: Redis pub/sub, on which each process hears of what it has asked for.

A wake is published to the channels of its keys and to those of their kinds; who listens to a kind gets all its wakes,
gathered. Own wakes are delivered at once and do not wait for Redis. While Redis is away they are all that is delivered;
both connections come back by themselves.

https://redis.io/docs/latest/develop/pubsub/
"""

import asyncio
import logging
import math
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, Final

import orjson
from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from homeserver.core.clock import Clock
from storage.bus.base import INTEREST_SECONDS, WAKES_LOST, WAKES_QUEUED_MAX, Subscription, Wake, kind_of
from storage.bus.interests import KEYS_PER_KIND_MAX, Interests
from storage.bus.memory import MemoryBus
from storage.database import forbid_in_transaction

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 500
# Channels in one command.
CHANNELS_MAX: Final = 1_000
# Interests that come within this time are subscribed to together.
GATHER_SECONDS: Final = 0.005
# Each process also says something when there is nothing to say; one that does not hear even itself connects anew.
HEARTBEAT_SECONDS: Final = 5.0
SILENCE_SECONDS_MAX: Final = 15.0
REQUEST_SECONDS_MAX: Final = 5.0
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0


# Takes channels and messages in turn.
PUBLISH_ALL: Final = """
for i = 1, #ARGV, 2 do
    redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
"""

MESSAGES: Final = Counter("heliograph_bus_messages_received", "Messages of other workers that came over Redis.")
INTERESTS: Final = Gauge(
    "heliograph_bus_subscriptions", "Redis channels that a worker listens to.", multiprocess_mode="liveall"
)


class RedisBus:
    """Carries wakes between processes that use the same Redis and channel."""

    def __init__(self, *, url: str, channel: str, clock: Clock, keys_per_kind_max: int = KEYS_PER_KIND_MAX) -> None:
        """Takes its means.

        Args:
            url: a `redis://` URL.
            channel: what the names of all channels begin with; this server's own, for Redis may be shared.
            clock: the clock.
            keys_per_kind_max: if more keys of a kind are wanted, all are listened to.
        """
        self._url = url
        self._prefix = f"{channel}:"
        self._clock = clock
        self._name = secrets.token_urlsafe(9)
        self._local = MemoryBus()
        self._outgoing: asyncio.Queue[Wake] = asyncio.Queue(WAKES_QUEUED_MAX)
        self._interests = Interests(clock=clock, keys_per_kind_max=keys_per_kind_max)
        self._has_changes = asyncio.Event()
        # Channels that Redis has not confirmed yet; and what is told when it has.
        self._unconfirmed = 0
        self._subscribed = 0
        self._on_gap: list[Callable[[], None]] = []

    async def wake(self, keys: Collection[str], position: int) -> None:
        """Wakes those who wait for any of the keys, in all processes; to be called after the commit."""
        forbid_in_transaction("A wake")
        wake = Wake(keys=frozenset(keys), position=position)
        self._local.deliver(wake)
        try:
            self._outgoing.put_nowait(wake)
        except asyncio.QueueFull:
            WAKES_LOST.inc()

    def subscribe(self) -> AbstractContextManager[Subscription]:
        """All wakes from now on, those of this process too."""
        return self._local.subscribe()

    def listen_for(self, keys: Collection[str]) -> None:
        """Says that wakes for keys are wanted in this process, for a while."""
        if self._interests.want(keys):
            self._has_changes.set()

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Has a function called whenever wakes may have been missed."""
        self._on_gap.append(callback)

    async def run(self) -> None:
        """Sends and listens until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_running("sending", self._send))
            tasks.create_task(self._keep_running("listening", self._listen))

    async def _keep_running(self, what: str, work: Callable[["Redis"], Awaitable[None]]) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            started = self._clock.monotonic()
            redis = Redis.from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=REQUEST_SECONDS_MAX,
                socket_timeout=SILENCE_SECONDS_MAX,
            )
            try:
                await work(redis)
            except* (RedisError, OSError) as errors:
                logger.warning("%s on Redis failed: %s", what, type(errors.exceptions[0]).__name__)
            finally:
                await self._close(redis)
            _end_if_cancelled()
            if self._clock.monotonic() - started > SILENCE_SECONDS_MAX:
                backoff_seconds = BACKOFF_SECONDS_MIN
            await self._clock.sleep(backoff_seconds * (0.5 + secrets.randbelow(1000) / 2000))
            backoff_seconds = min(2 * backoff_seconds, BACKOFF_SECONDS_MAX)

    @staticmethod
    async def _close(redis: "Redis") -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                await redis.aclose()
        except (RedisError, OSError):
            pass

    async def _send(self, redis: "Redis") -> None:
        # A connection of its own, which the pool closes: a command through the client costs half as much again.
        connection = await redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        beat_at = -math.inf
        while True:
            _end_if_cancelled()
            wakes = await self._next_batch()
            messages = self._encode(wakes)
            if self._clock.monotonic() >= beat_at:
                beat_at = self._clock.monotonic() + HEARTBEAT_SECONDS
                messages.append((self._prefix + self._name, b""))
            try:
                for start in range(0, len(messages), CHANNELS_MAX):
                    async with asyncio.timeout(REQUEST_SECONDS_MAX):
                        parts = chain.from_iterable(messages[start : start + CHANNELS_MAX])
                        await connection.send_command("EVAL", PUBLISH_ALL, 0, *parts, check_health=False)
                        await connection.read_response()
            except (RedisError, OSError):
                WAKES_LOST.inc(len(wakes))
                raise

    async def _next_batch(self) -> list[Wake]:
        """The wakes that have gathered; none if there were none for a while."""
        wakes: list[Wake] = []
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                wakes.append(await self._outgoing.get())
        except TimeoutError:
            return wakes
        while len(wakes) < BATCH_MAX and not self._outgoing.empty():
            wakes.append(self._outgoing.get_nowait())
        return wakes

    async def _listen(self, redis: "Redis") -> None:
        self._interests.begin_anew()
        self._has_changes.set()
        self._unconfirmed, self._subscribed = 1, 0
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe(self._prefix + self._name)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_interests(pubsub))
                # Not in a task of its own: after that had failed this one would count as cancelled, in Python 3.11.
                await self._read(pubsub)

    async def _read(self, pubsub: "PubSub") -> None:
        heard_at = self._clock.monotonic()
        while self._clock.monotonic() - heard_at < SILENCE_SECONDS_MAX:
            _end_if_cancelled()
            message = await pubsub.get_message(timeout=HEARTBEAT_SECONDS)
            if message is None:
                continue
            heard_at = self._clock.monotonic()
            if message["type"] == "message":
                for wake in self._decode(message["data"]):
                    self._local.deliver(wake)
            elif message["type"] == "subscribe":
                self._confirmed()
        raise ConnectionError("Nothing was heard for too long")

    def _confirmed(self) -> None:
        self._unconfirmed -= 1
        if self._unconfirmed == 0:
            for callback in self._on_gap:
                callback()

    async def _follow_interests(self, pubsub: "PubSub") -> None:
        """Subscribes to what is wanted, and leaves what has not been wanted for long."""
        forget_at = self._clock.monotonic() + INTEREST_SECONDS
        while True:
            _end_if_cancelled()
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._has_changes.wait()
            except TimeoutError:
                pass
            await self._clock.sleep(GATHER_SECONDS)
            self._has_changes.clear()
            left: list[str] = []
            if self._clock.monotonic() >= forget_at:
                forget_at = self._clock.monotonic() + INTEREST_SECONDS
                left += self._interests.forget()
            joined, outdated = self._interests.take_changes()
            await self._subscribe(pubsub, list(joined), [*left, *outdated])

    async def _subscribe(self, pubsub: "PubSub", joined: list[str], left: list[str]) -> None:
        for start in range(0, len(joined), CHANNELS_MAX):
            _end_if_cancelled()
            channels = [self._prefix + key for key in joined[start : start + CHANNELS_MAX]]
            self._unconfirmed += len(channels)
            await pubsub.subscribe(*channels)
        for start in range(0, len(left), CHANNELS_MAX):
            _end_if_cancelled()
            await pubsub.unsubscribe(*(self._prefix + key for key in left[start : start + CHANNELS_MAX]))
        self._subscribed += len(joined) - len(left)
        INTERESTS.set(self._subscribed)

    def _encode(self, wakes: list[Wake]) -> list[tuple[str, bytes]]:
        """The messages for the channels of all keys and kinds."""
        told: defaultdict[str, list[tuple[int, list[str]]]] = defaultdict(list)
        for wake in wakes:
            kinds: defaultdict[str, list[str]] = defaultdict(list)
            for key in wake.keys:
                kinds[kind_of(key)].append(key)
                if key != kind_of(key):
                    told[key].append((wake.position, [key]))
            for kind, keys in kinds.items():
                told[kind].append((wake.position, sorted(keys)))
        return [
            (self._prefix + channel, orjson.dumps({"from": self._name, "wakes": list_of_wakes}))
            for channel, list_of_wakes in told.items()
        ]

    def _decode(self, data: Any) -> list[Wake]:
        """The wakes in a message of another process; none in those of this one, or in a sign of life."""
        if not data:
            return []
        try:
            message = orjson.loads(data)
            if message["from"] == self._name:
                return []
            wakes = [
                Wake(keys=frozenset(map(str, keys)), position=int(position)) for position, keys in message["wakes"]
            ]
        except (ValueError, TypeError, KeyError):
            logger.warning("Something on the Redis channel is not ours")
            return []
        MESSAGES.inc()
        return wakes


def _end_if_cancelled() -> None:
    """Ends the task if it has been cancelled already.

    The client of Redis awaits with `asyncio.wait_for`, which in Python 3.11 loses a cancellation that comes when what
    it awaits has just been done. It must not be called under an `asyncio.timeout`.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
