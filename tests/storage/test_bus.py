"""Both buses: a wake reaches every subscriber, in every process; the Redis bus survives the loss of Redis."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from storage.bus.base import WAKES_QUEUED_MAX, Bus, Subscription, Wake
from storage.bus.memory import MemoryBus
from storage.bus.redis import RedisBus
from tests.fast_clock import FastClock
from tests.processes import redis_program
from tests.waiting import wait_until

WAIT_SECONDS = 5.0


@asynccontextmanager
async def running(*buses: Bus) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(bus.run()) for bus in buses]
        yield
        for run in runs:
            run.cancel()


async def next_wake(subscription: Subscription) -> Wake:
    async with asyncio.timeout(WAIT_SECONDS):
        return await subscription.next()


@dataclass
class RedisServer:
    """A Redis of this test's own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [redis_program(), *options, "--dir", str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(WAIT_SECONDS)
            self.process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = RedisServer(folder=tmp_path, port=free.getsockname()[1])
    server.start()
    yield server
    server.stop()


MakeBus = Callable[[], Bus]


@pytest.fixture(params=["memory", "redis"])
def make_bus(request: pytest.FixtureRequest) -> MakeBus:
    if request.param == "memory":
        return MemoryBus
    redis: RedisServer = request.getfixturevalue("redis")
    return lambda: RedisBus(url=redis.url, channel="wakes:example.org", clock=FastClock())


async def test_every_subscriber_of_the_process_is_woken(make_bus: MakeBus) -> None:
    bus = make_bus()
    async with running(bus):
        with bus.subscribe() as first, bus.subscribe() as second:
            await bus.wake({"room:!a:b", "user:@a:b"}, 7)
            expected = Wake(keys=frozenset({"room:!a:b", "user:@a:b"}), position=7)
            assert await next_wake(first) == expected
            assert await next_wake(second) == expected


async def test_wakes_come_in_order_and_once(make_bus: MakeBus) -> None:
    bus = make_bus()
    async with running(bus):
        with bus.subscribe() as subscription:
            for position in range(100):
                await bus.wake({"room:!a:b"}, position)
            assert [(await next_wake(subscription)).position for _ in range(100)] == list(range(100))
            await bus.wake({"room:!last:b"}, 100)
            assert (await next_wake(subscription)).position == 100


async def test_after_the_subscription_nothing_is_delivered(make_bus: MakeBus) -> None:
    bus = make_bus()
    async with running(bus):
        with bus.subscribe() as ended:
            pass
        await bus.wake({"room:!a:b"}, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ended.next()


async def test_a_subscriber_that_does_not_read_costs_bounded_memory(make_bus: MakeBus) -> None:
    bus = make_bus()
    with bus.subscribe() as subscription:
        for position in range(WAKES_QUEUED_MAX + 10):
            await bus.wake({"room:!a:b"}, position)
        received = [await next_wake(subscription) for _ in range(WAKES_QUEUED_MAX)]
        assert received[-1].position == WAKES_QUEUED_MAX - 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await subscription.next()


async def connected(sender: Bus, receiver: Subscription) -> None:
    """Waits until the sender's wakes arrive."""

    async def arrives() -> bool:
        await sender.wake({"probe:"}, 0)
        try:
            async with asyncio.timeout(0.05):
                await receiver.next()
        except TimeoutError:
            return False
        return True

    await wait_until(arrives)


async def next_but_probes(subscription: Subscription) -> Wake:
    while True:
        wake = await next_wake(subscription)
        if wake.keys != {"probe:"}:
            return wake


async def test_processes_hear_each_other_and_not_other_servers(redis: RedisServer) -> None:
    one, two = (RedisBus(url=redis.url, channel="wakes:a", clock=FastClock()) for _ in range(2))
    other = RedisBus(url=redis.url, channel="wakes:b", clock=FastClock())
    async with running(one, two, other):
        with two.subscribe() as hears, other.subscribe() as hears_other:
            await connected(one, hears)
            await one.wake({"room:!ä:b", "user:@a:b"}, 2**53)
            wake = await next_but_probes(hears)
            assert wake == Wake(keys=frozenset({"room:!ä:b", "user:@a:b"}), position=2**53)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await hears_other.next()


async def test_the_bus_comes_back_with_redis(redis: RedisServer) -> None:
    one, two = (RedisBus(url=redis.url, channel="wakes", clock=FastClock()) for _ in range(2))
    async with running(one, two):
        with two.subscribe() as hears, one.subscribe() as hears_itself:
            await connected(one, hears)
            redis.stop()
            await one.wake({"room:!while:away"}, 1)
            assert (await next_but_probes(hears_itself)).keys == {"room:!while:away"}, "own wakes need no Redis"
            redis.start()
            await connected(one, hears)


async def test_a_foreign_message_on_the_channel_is_passed_over(redis: RedisServer) -> None:
    one, two = (RedisBus(url=redis.url, channel="wakes", clock=FastClock()) for _ in range(2))
    async with running(one, two), Redis.from_url(redis.url) as stranger:
        with two.subscribe() as hears:
            await connected(one, hears)
            for message in ("nonsense", "[]", '{"from": 1, "wakes": [1]}', '{"from": "x", "wakes": [["a", ["k"]]]}'):
                assert await stranger.publish("wakes", message) == 2
            await one.wake({"room:!a:b"}, 5)
            assert (await next_but_probes(hears)).position == 5


async def test_it_ends_whenever_it_is_cancelled(redis: RedisServer) -> None:
    """Also while it connects, when the client of Redis may lose a cancellation."""
    for moment in range(80):
        bus = RedisBus(url=redis.url, channel="wakes", clock=FastClock())
        run = asyncio.create_task(bus.run())
        await asyncio.sleep(moment / 20_000)
        run.cancel()
        done, _ = await asyncio.wait([run], timeout=WAIT_SECONDS)
        assert done, f"it still runs after it was cancelled in moment {moment}"
