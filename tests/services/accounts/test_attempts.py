"""Counting wrong passwords, in this process and in Redis."""

import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homeserver.config.schema import RateConfig
from homeserver.core.errors import LimitExceeded
from homeserver.services.accounts.attempts import AttemptCounts, AttemptLimits, LocalAttemptCounts
from homeserver.services.accounts.redis_attempts import KEY_PREFIX, RedisAttemptCounts
from tests.processes import redis_program
from tests.waiting import wait_until
from tests.web.harness import ManualClock

RATE = RateConfig(per_second=0.01, burst=3)
ALICE = "@alice:test"


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Redis server of our own."""
    path = tmp_path_factory.mktemp("redis") / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)]
    server = subprocess.Popen([redis_program(), *options], stdout=subprocess.DEVNULL)
    yield path
    server.terminate()
    server.wait(10)


@pytest.fixture
async def redis(redis_path: Path) -> AsyncIterator[Redis]:
    """A connection to it, when it answers."""

    def listening() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(redis_path)) == 0

    await wait_until(listening)
    async with Redis(unix_socket_path=str(redis_path)) as connection:
        await connection.flushall()
        yield connection


@pytest.fixture(params=["local", "redis"])
def counts(request: pytest.FixtureRequest) -> AttemptCounts:
    """Both kinds."""
    clock = ManualClock()
    local = LocalAttemptCounts(clock)
    if request.param == "local":
        return local
    return RedisAttemptCounts(request.getfixturevalue("redis"), fallback=local, clock=clock)


async def test_a_burst_then_waiting(counts: AttemptCounts) -> None:
    assert [await counts.take("a", RATE) for _ in range(3)] == [0, 0, 0]
    wait_seconds = await counts.take("a", RATE)
    assert 99 < wait_seconds <= 100
    assert await counts.take("b", RATE) == 0


async def test_what_is_given_back_does_not_count(counts: AttemptCounts) -> None:
    for _ in range(10):
        assert await counts.take("a", RATE) == 0
        await counts.give_back("a", RATE)
    assert [await counts.take("a", RATE) for _ in range(3)] == [0, 0, 0]
    assert await counts.take("a", RATE) > 0
    await counts.give_back("a", RATE)
    assert await counts.take("a", RATE) == 0


async def test_giving_back_too_much_gives_no_credit(counts: AttemptCounts) -> None:
    for _ in range(5):
        await counts.give_back("a", RATE)
    assert [await counts.take("a", RATE) > 0 for _ in range(4)] == [False, False, False, True]


async def test_time_passes() -> None:
    clock = ManualClock()
    counts = LocalAttemptCounts(clock)
    for _ in range(3):
        await counts.take("a", RATE)
    clock.advance(99)
    assert await counts.take("a", RATE) > 0
    clock.advance(1)
    assert await counts.take("a", RATE) == 0
    assert await counts.take("a", RATE) > 0


async def test_workers_count_together(redis: Redis) -> None:
    clock = ManualClock()
    workers = [RedisAttemptCounts(redis, fallback=LocalAttemptCounts(clock), clock=clock) for _ in range(2)]
    assert [await workers[number % 2].take("a", RATE) > 0 for number in range(4)] == [False, False, False, True]
    assert 0 < await redis.pttl(KEY_PREFIX + "a") <= 300_000


class _Away:
    """A Redis that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def register_script(self, _: str) -> Any:
        async def call(**__: Any) -> Any:
            self.asked += 1
            raise RedisError("away")

        return call


async def test_without_redis_each_counts_for_itself() -> None:
    clock, away = ManualClock(), _Away()
    counts = RedisAttemptCounts(away, fallback=LocalAttemptCounts(clock), clock=clock)  # type: ignore[arg-type]
    assert [await counts.take("a", RATE) > 0 for _ in range(4)] == [False, False, False, True]
    await counts.give_back("a", RATE)
    assert away.asked == 1, "it is left alone for a while"
    clock.advance(10)
    assert await counts.take("a", RATE) == 0
    assert away.asked == 2


async def test_the_account_and_the_address_are_counted() -> None:
    clock = ManualClock()
    limits = AttemptLimits(counts=LocalAttemptCounts(clock), rate=RATE, enabled=True)
    for number in range(3):
        await limits.take(account=ALICE, ip=f"192.0.2.{number}")
    with pytest.raises(LimitExceeded) as raised:
        await limits.take(account=ALICE, ip="192.0.2.99")
    assert raised.value.retry_after_ms == 100_000
    for number in range(3):
        await limits.take(account=f"@user{number}:test", ip=f"2001:db8::{number}")
    with pytest.raises(LimitExceeded):
        await limits.take(account="@user9:test", ip="2001:db8::9")
    await limits.take(account="@user9:test", ip="2001:db8:1::9")
    await limits.take(account="@user9:test", ip="not an address")


async def test_what_the_address_refuses_does_not_count_for_the_account() -> None:
    limits = AttemptLimits(counts=LocalAttemptCounts(ManualClock()), rate=RATE, enabled=True)
    for number in range(3):
        await limits.take(account=f"@user{number}:test", ip="192.0.2.1")
    for _ in range(5):
        with pytest.raises(LimitExceeded):
            await limits.take(account=ALICE, ip="192.0.2.1")
    for number in range(3):
        await limits.take(account=ALICE, ip=f"198.51.100.{number}")


async def test_limits_can_be_turned_off() -> None:
    limits = AttemptLimits(counts=LocalAttemptCounts(ManualClock()), rate=RATE, enabled=False)
    for _ in range(50):
        await limits.take(account=ALICE, ip="192.0.2.1")
