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
from storage.bus.interests import FORGET_SECONDS, Interests
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


async def connected(sender: Bus, receiving: Bus, receiver: Subscription) -> None:
    """Waits until the sender's wakes arrive."""

    async def arrives() -> bool:
        receiving.listen_for({"probe:"})
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
            for bus in (two, other):
                bus.listen_for({"room:", "user:"})
            await connected(one, two, hears)
            await one.wake({"room:!ä:b", "user:@a:b"}, 2**53)
            wakes = [await next_but_probes(hears) for _ in range(2)]
            assert {wake.keys for wake in wakes} == {frozenset({"room:!ä:b"}), frozenset({"user:@a:b"})}
            assert [wake.position for wake in wakes] == [2**53, 2**53]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await hears_other.next()


async def test_the_bus_comes_back_with_redis(redis: RedisServer) -> None:
    one, two = (RedisBus(url=redis.url, channel="wakes", clock=FastClock()) for _ in range(2))
    async with running(one, two):
        with two.subscribe() as hears, one.subscribe() as hears_itself:
            two.listen_for({"room:!a:b"})
            await connected(one, two, hears)
            redis.stop()
            await one.wake({"room:!while:away"}, 1)
            assert (await next_but_probes(hears_itself)).keys == {"room:!while:away"}, "own wakes need no Redis"
            redis.start()
            await connected(one, two, hears)
            await one.wake({"room:!a:b"}, 2)
            assert (await next_but_probes(hears)).position == 2, "what it had asked for before"


async def test_a_foreign_message_on_the_channel_is_passed_over(redis: RedisServer) -> None:
    one, two = (RedisBus(url=redis.url, channel="wakes", clock=FastClock()) for _ in range(2))
    async with running(one, two), Redis.from_url(redis.url) as stranger:
        with two.subscribe() as hears:
            two.listen_for({"room:"})
            await connected(one, two, hears)
            for message in ("nonsense", "[]", '{"from": 1, "wakes": [1]}', '{"from": "x", "wakes": [["a", ["k"]]]}'):
                assert await stranger.publish("wakes:room:", message) == 1
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


async def drained(subscription: Subscription) -> list[Wake]:
    """All wakes but probes that have come."""
    wakes = []
    while True:
        try:
            async with asyncio.timeout(0.05):
                wakes.append(await subscription.next())
        except TimeoutError:
            return [wake for wake in wakes if wake.keys != {"probe:"}]


async def test_a_process_hears_only_of_what_it_wants(redis: RedisServer) -> None:
    sender, one, other, all_rooms = (RedisBus(url=redis.url, channel="wakes", clock=FastClock()) for _ in range(4))
    async with running(sender, one, other, all_rooms):
        with one.subscribe() as hears, other.subscribe() as hears_other, all_rooms.subscribe() as hears_rooms:
            one.listen_for({"room:!a:b", "user:@u:b"})
            other.listen_for({"room:!b:b"})
            all_rooms.listen_for({"room:", "room:!a:b"})
            for bus, subscription in ((one, hears), (other, hears_other), (all_rooms, hears_rooms)):
                await connected(sender, bus, subscription)
            await drained(hears)
            await sender.wake({"room:!a:b", "user:@u:b"}, 1)
            await sender.wake({"room:!b:b", "user:@v:b"}, 2)
            await sender.wake({"room:!c:b"}, 3)
            heard = await drained(hears)
            assert {(key, wake.position) for wake in heard for key in wake.keys} == {("room:!a:b", 1), ("user:@u:b", 1)}
            assert await drained(hears_other) == [Wake(frozenset({"room:!b:b"}), 2)]
            rooms = await drained(hears_rooms)
            assert rooms == [Wake(frozenset({f"room:!{name}:b"}), at) for at, name in enumerate("abc", 1)], "each once"


async def test_who_wants_very_much_listens_to_the_whole_kind(redis: RedisServer) -> None:
    sender, bus = (RedisBus(url=redis.url, channel="wakes", clock=FastClock(), keys_per_kind_max=3) for _ in range(2))
    async with running(sender, bus), Redis.from_url(redis.url, decode_responses=True) as looker:
        with bus.subscribe() as hears:
            bus.listen_for({"room:!0:b", "room:!1:b", "user:@u:b"})
            await connected(sender, bus, hears)
            bus.listen_for({f"room:!{number}:b" for number in range(5)})

            async def listens_to_the_kind() -> bool:
                channels = set(await looker.pubsub_channels("wakes:*"))
                return {"wakes:room:", "wakes:user:@u:b"} <= channels and "wakes:room:!0:b" not in channels

            await wait_until(listens_to_the_kind)
            await drained(hears)
            for number in range(5):
                await sender.wake({f"room:!{number}:b"}, number)
            assert [wake.position for wake in await drained(hears)] == list(range(5))


async def test_it_is_told_when_what_is_wanted_is_heard(redis: RedisServer) -> None:
    bus, gaps = RedisBus(url=redis.url, channel="wakes", clock=FastClock()), []
    bus.on_gap(lambda: gaps.append(True))
    async with running(bus):
        await wait_until(lambda: len(gaps) == 1)
        bus.listen_for({"room:!a:b"})
        await wait_until(lambda: len(gaps) == 2)
        bus.listen_for({"room:!a:b"})
        redis.stop()
        redis.start()
        await wait_until(lambda: len(gaps) >= 3)


def test_what_is_not_wanted_any_more_is_left_after_a_while() -> None:
    clock = FastClock()
    interests = Interests(clock=clock, keys_per_kind_max=2)
    assert interests.want({"room:!a:b", "user:@u:b"})
    assert not interests.want({"room:!a:b"})
    joined, left = interests.take_changes()
    assert (set(joined), list(left)) == ({"room:!a:b", "user:@u:b"}, [])
    clock.advance(FORGET_SECONDS / 2)
    assert interests.want({"room:!a:b", "room:!b:b", "room:!c:b"})
    joined, left = interests.take_changes()
    assert (list(joined), list(left)) == (["room:"], ["room:!a:b"])
    clock.advance(FORGET_SECONDS * 0.6)
    assert interests.forget() == ["user:@u:b"]
    interests.want({"room:!a:b"})
    clock.advance(FORGET_SECONDS * 0.6)
    assert not interests.forget()
    joined, left = interests.take_changes()
    assert (list(joined), list(left)) == (["room:!a:b"], ["room:"])
    interests.begin_anew()
    joined, left = interests.take_changes()
    assert (list(joined), list(left)) == (["room:!a:b"], [])
