"""Rates in bytes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from homeserver.core.errors import LimitExceeded
from homeserver.services.media import byte_rates
from homeserver.services.media.byte_rates import COUNTED_BYTES, ByteBuckets, ByteRates, LocalByteBuckets
from homeserver.services.media.redis_byte_buckets import KEY_PREFIX, RedisByteBuckets
from tests.processes import redis
from tests.web.harness import ManualClock

MIB = 1024 * 1024


@pytest.fixture
def clock() -> ManualClock:
    """It stands still."""
    return ManualClock()


def rates_in(buckets: ByteBuckets) -> ByteRates:
    """10 MiB a second, 100 MiB at once, 50 MiB more of what had begun."""
    return ByteRates(
        buckets=buckets, name="uploads", bytes_per_second=10 * MIB, burst_bytes=100 * MIB, overflow_bytes=50 * MIB
    )


@pytest.fixture
def rates(clock: ManualClock) -> ByteRates:
    """Rates of one process."""
    return rates_in(LocalByteBuckets(clock))


async def bring(rates: ByteRates, owner: str, *sizes_bytes: int) -> None:
    async with rates.counting(owner) as count:
        for size_bytes in sizes_bytes:
            await count(size_bytes)


async def test_a_bucket_overflows_and_leaks(rates: ByteRates, clock: ManualClock) -> None:
    await bring(rates, "a", 99 * MIB)
    await bring(rates, "a", 11 * MIB, 10 * MIB)
    with pytest.raises(LimitExceeded) as caught:
        await bring(rates, "a")
    assert caught.value.retry_after_ms == 2001
    await bring(rates, "b")
    clock.advance(caught.value.retry_after_ms / 1000)
    await bring(rates, "a")


async def test_what_comes_at_the_same_time_is_cut_off(rates: ByteRates) -> None:
    """However many uploads were begun in time."""
    async with rates.counting("a") as first, rates.counting("a") as second:
        await first(75 * MIB)
        await second(75 * MIB)
        with pytest.raises(LimitExceeded):
            await first(MIB)


async def test_small_pieces_are_counted_together_and_in_the_end(
    rates: ByteRates, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut off has come too."""
    added: list[int] = []
    add = LocalByteBuckets.add

    async def note(self: LocalByteBuckets, owner: str, size_bytes: int, *, bytes_per_second: int) -> float:
        added.append(size_bytes)
        return await add(self, owner, size_bytes, bytes_per_second=bytes_per_second)

    monkeypatch.setattr(LocalByteBuckets, "add", note)
    await bring(rates, "a", *[COUNTED_BYTES // 4] * 6)
    assert added == [0, COUNTED_BYTES, COUNTED_BYTES // 2]
    with pytest.raises(KeyError):
        async with rates.counting("a") as count:
            await count(5)
            raise KeyError
    assert added[-2:] == [0, 5]


async def test_buckets_are_bounded(rates: ByteRates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_rates, "BUCKETS_MAX", 2)
    for owner in ("a", "b", "c"):
        await bring(rates, owner, 100 * MIB)
    await bring(rates, "a")
    with pytest.raises(LimitExceeded):
        await bring(rates, "c")


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Redis]:
    """An empty Redis."""
    async with redis(tmp_path) as process, Redis.from_url(process.url) as opened:
        yield opened


async def test_workers_count_together(connection: Redis, clock: ManualClock) -> None:
    """With Redis, by its own time; kinds and owners apart."""
    workers = [rates_in(RedisByteBuckets(connection, fallback=LocalByteBuckets(clock), clock=clock)) for _ in range(2)]
    await bring(workers[0], "a", 60 * MIB)
    await bring(workers[1], "a", 60 * MIB)
    for rates in workers:
        with pytest.raises(LimitExceeded) as caught:
            await bring(rates, "a")
        assert caught.value.retry_after_ms == pytest.approx(2000, abs=1500)
    await bring(workers[0], "b")
    assert 8_000 <= await connection.pttl(KEY_PREFIX + "uploads a") <= 12_000


async def test_without_redis_each_counts_for_itself(clock: ManualClock) -> None:
    async with Redis(unix_socket_path="/nowhere/redis.sock") as absent:
        rates = rates_in(RedisByteBuckets(absent, fallback=LocalByteBuckets(clock), clock=clock))
        await bring(rates, "a", 120 * MIB)
        started = asyncio.get_running_loop().time()
        with pytest.raises(LimitExceeded):
            await bring(rates, "a")
        assert asyncio.get_running_loop().time() - started < 0.2, "it is left alone for a while"
