"""Rate limits, in this process and in Redis."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homeserver.core.errors import LimitExceeded
from homeserver.core.requester import Requester
from homeserver.web.endpoint import RateLimit
from homeserver.web.rate_limits import UNLIMITED, LocalBuckets, Rate, RateLimits
from homeserver.web.redis_rate_limits import KEY_PREFIX, RedisBuckets
from tests.processes import redis_program
from tests.web.harness import ALICE, BOB, ManualClock

RATE = Rate(per_second=2, burst=3)


async def test_a_burst_then_the_rate() -> None:
    clock = ManualClock()
    buckets = LocalBuckets(clock)
    assert [await buckets.take("a", RATE) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    clock.advance(0.25)
    assert await buckets.take("a", RATE) == 0.25
    clock.advance(0.25)
    assert [await buckets.take("a", RATE) for _ in range(2)] == [0, 0.5]
    clock.advance(60)
    assert [await buckets.take("a", RATE) for _ in range(4)] == [0, 0, 0, 0.5]


async def test_buckets_do_not_touch_each_other() -> None:
    buckets = LocalBuckets(ManualClock())
    assert [await buckets.take("a", Rate(per_second=1, burst=1)) for _ in range(2)] == [0, 1]
    assert await buckets.take("b", Rate(per_second=1, burst=1)) == 0


async def test_in_the_long_run_the_rate_is_met_exactly() -> None:
    clock = ManualClock()
    buckets = LocalBuckets(clock)
    taken = 0
    for _ in range(10_000):
        clock.advance(0.01)
        taken += await buckets.take("a", Rate(per_second=7, burst=3)) == 0
    assert 700 <= taken <= 703


async def test_buckets_are_bounded_and_full_ones_forgotten() -> None:
    clock = ManualClock()
    buckets = LocalBuckets(clock, buckets_max=100)
    for number in range(1000):
        await buckets.take(f"{number}", RATE)
    assert len(buckets) == 100
    clock.advance(60)
    for _ in range(100):
        await buckets.take("a", Rate(per_second=1000, burst=1000))
    assert len(buckets) == 1


def limits(clock: ManualClock, *, enabled: bool = True) -> RateLimits:
    async def override(requester: Requester, rate_limit: RateLimit) -> Rate | None:
        return UNLIMITED if requester is BOB and rate_limit is RateLimit.MESSAGE else None

    rates = {RateLimit.MESSAGE: Rate(per_second=1, burst=2), RateLimit.LOGIN: Rate(per_second=0.1, burst=1)}
    return RateLimits(store=LocalBuckets(clock), rates=rates, enabled=enabled, override=override)


async def count_passed(
    under_test: RateLimits,
    rate_limit: RateLimit | None,
    *,
    requester: Requester | None = None,
    origin: str | None = None,
    ip: str = "192.0.2.1",
) -> int:
    """How many of ten requests pass."""
    for passed in range(10):
        try:
            await under_test.check(rate_limit, requester=requester, origin=origin, ip=ip)
        except LimitExceeded:
            return passed
    return 10


async def test_users_are_limited_wherever_they_are() -> None:
    under_test = limits(ManualClock())
    assert await count_passed(under_test, RateLimit.MESSAGE, requester=ALICE, ip="192.0.2.1") == 2
    assert await count_passed(under_test, RateLimit.MESSAGE, requester=ALICE, ip="192.0.2.2") == 0


async def test_others_are_limited_by_address_or_server() -> None:
    under_test = limits(ManualClock())
    assert await count_passed(under_test, RateLimit.LOGIN, ip="192.0.2.1") == 1
    assert await count_passed(under_test, RateLimit.LOGIN, ip="192.0.2.2") == 1
    assert await count_passed(under_test, RateLimit.LOGIN, ip="2001:db8::1") == 1
    assert await count_passed(under_test, RateLimit.LOGIN, ip="2001:db8::2") == 0
    assert await count_passed(under_test, RateLimit.MESSAGE, origin="a.test") == 2
    assert await count_passed(under_test, RateLimit.MESSAGE, origin="b.test") == 2


async def test_the_error_says_how_long_to_wait() -> None:
    clock = ManualClock()
    under_test = limits(clock)
    await under_test.check(RateLimit.LOGIN, requester=None, origin=None, ip="192.0.2.1")
    clock.advance(2.5)
    with pytest.raises(LimitExceeded) as raised:
        await under_test.check(RateLimit.LOGIN, requester=None, origin=None, ip="192.0.2.1")
    assert raised.value.retry_after_ms == pytest.approx(7500, abs=1)


async def test_what_is_not_limited() -> None:
    assert await count_passed(limits(ManualClock()), None, requester=ALICE) == 10
    assert await count_passed(limits(ManualClock()), RateLimit.JOIN, requester=ALICE) == 10
    assert await count_passed(limits(ManualClock()), RateLimit.MESSAGE, requester=BOB) == 10
    assert await count_passed(limits(ManualClock(), enabled=False), RateLimit.MESSAGE, requester=ALICE) == 10


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a Redis of our own."""
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "redis.sock"
    command = [
        redis_program(),
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield path
        finally:
            process.terminate()


@pytest.fixture
async def redis(redis_path: Path) -> AsyncIterator[Redis]:
    """An empty Redis."""
    async with Redis(unix_socket_path=str(redis_path)) as connection:
        async with asyncio.timeout(10):
            while True:
                try:
                    await connection.flushall()
                    break
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
        yield connection


async def test_redis_counts_as_one_for_several_workers(redis: Redis) -> None:
    clock = ManualClock()
    workers = [RedisBuckets(redis, fallback=LocalBuckets(clock), clock=clock) for _ in range(2)]
    slow = Rate(per_second=0.01, burst=3)
    waits = [await workers[number % 2].take("a", slow) for number in range(5)]
    assert waits[:3] == [0, 0, 0]
    assert waits[3] == pytest.approx(100, abs=1)
    assert waits[4] == pytest.approx(100, abs=1)
    assert 299_000 <= await redis.pttl(KEY_PREFIX + "a") <= 300_000
    assert await workers[0].take("b", slow) == 0


async def test_redis_refills_by_its_own_time(redis: Redis) -> None:
    clock = ManualClock()
    buckets = RedisBuckets(redis, fallback=LocalBuckets(clock), clock=clock)
    quick = Rate(per_second=50, burst=1)
    assert await buckets.take("a", quick) == 0
    async with asyncio.timeout(5):
        while await buckets.take("a", quick) > 0:
            await asyncio.sleep(0.005)


async def test_without_redis_each_counts_for_itself(redis: Redis) -> None:
    clock = ManualClock()
    async with Redis(unix_socket_path="/nowhere/redis.sock") as absent:
        buckets = RedisBuckets(absent, fallback=LocalBuckets(clock), clock=clock)
        assert [await buckets.take("a", RATE) for _ in range(4)] == [0, 0, 0, 0.5]


async def test_a_redis_that_hangs_is_left_alone_for_a_while() -> None:
    clock = ManualClock()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Redis(port=silent.getsockname()[1]) as hanging:
            buckets = RedisBuckets(hanging, fallback=LocalBuckets(clock), clock=clock, answer_seconds=0.1)
            started = asyncio.get_running_loop().time()
            assert [await buckets.take("a", RATE) for _ in range(3)] == [0, 0, 0]
            assert asyncio.get_running_loop().time() - started < 0.3
            clock.advance(6)
            started = asyncio.get_running_loop().time()
            await buckets.take("a", RATE)
            assert asyncio.get_running_loop().time() - started >= 0.1
