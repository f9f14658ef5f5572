"""The bus of a server with several processes: Redis pub/sub, on which every process hears every other.

Own wakes are delivered at once and do not wait for Redis. While Redis is away they are all that is delivered; both
connections come back by themselves.

https://redis.io/docs/latest/develop/pubsub/
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from homeserver.core.clock import Clock
from storage.bus.base import WAKES_LOST, WAKES_QUEUED_MAX, Subscription, Wake
from storage.bus.memory import MemoryBus
from storage.database import forbid_in_transaction

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 500
# Each process also says something when there is nothing to say; one that does not hear even itself connects anew.
HEARTBEAT_SECONDS: Final = 5.0
SILENCE_SECONDS_MAX: Final = 15.0
REQUEST_SECONDS_MAX: Final = 5.0
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0


class RedisBus:
    """Carries wakes between processes that use the same Redis and channel."""

    def __init__(self, *, url: str, channel: str, clock: Clock) -> None:
        """Takes a `redis://` URL and a channel that is this server's own, for Redis may be shared."""
        self._url = url
        self._channel = channel
        self._clock = clock
        self._name = secrets.token_urlsafe(9)
        self._local = MemoryBus()
        self._outgoing: asyncio.Queue[Wake] = asyncio.Queue(WAKES_QUEUED_MAX)

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
            except (RedisError, OSError) as error:
                logger.warning("%s on Redis failed: %s", what, type(error).__name__)
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
        while True:
            _end_if_cancelled()
            wakes = await self._next_batch()
            try:
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    await redis.publish(self._channel, self._encode(wakes))
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
        async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(self._channel)
            heard_at = self._clock.monotonic()
            while self._clock.monotonic() - heard_at < SILENCE_SECONDS_MAX:
                _end_if_cancelled()
                message = await pubsub.get_message(timeout=HEARTBEAT_SECONDS)
                if message is None:
                    continue
                heard_at = self._clock.monotonic()
                for wake in self._decode(message["data"]):
                    self._local.deliver(wake)
        raise ConnectionError("Nothing was heard for too long")

    def _encode(self, wakes: list[Wake]) -> bytes:
        return orjson.dumps({"from": self._name, "wakes": [[wake.position, sorted(wake.keys)] for wake in wakes]})

    def _decode(self, data: Any) -> list[Wake]:
        """The wakes in a message of another process; none in those of this one."""
        try:
            message = orjson.loads(data)
            if message["from"] == self._name:
                return []
            return [Wake(keys=frozenset(map(str, keys)), position=int(position)) for position, keys in message["wakes"]]
        except (ValueError, TypeError, KeyError):
            logger.warning("Something on the Redis channel is not ours")
            return []


def _end_if_cancelled() -> None:
    """Ends the task if it has been cancelled already.

    The client of Redis awaits with `asyncio.wait_for`, which in Python 3.11 loses a cancellation that comes when what
    it awaits has just been done. It must not be called under an `asyncio.timeout`.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
