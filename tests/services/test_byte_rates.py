"""Rates in bytes."""

import pytest

from homeserver.core.errors import LimitExceeded
from homeserver.services.media import byte_rates
from homeserver.services.media.byte_rates import ByteRates
from tests.web.harness import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """It stands still."""
    return ManualClock()


@pytest.fixture
def rates(clock: ManualClock) -> ByteRates:
    """10 bytes a second, 100 at once, 50 more of what had begun."""
    return ByteRates(bytes_per_second=10, burst_bytes=100, overflow_bytes=50, clock=clock)


def test_a_bucket_overflows_and_leaks(rates: ByteRates, clock: ManualClock) -> None:
    rates.add("a", 99)
    rates.check("a")
    rates.add("a", 21)
    with pytest.raises(LimitExceeded) as caught:
        rates.check("a")
    assert caught.value.retry_after_ms == 2100
    rates.check("b")
    clock.advance(caught.value.retry_after_ms / 1000)
    rates.check("a")


def test_what_comes_at_the_same_time_is_cut_off(rates: ByteRates) -> None:
    """However many uploads were begun in time."""
    rates.add("a", 150)
    with pytest.raises(LimitExceeded):
        rates.add("a", 1)


def test_buckets_are_bounded(rates: ByteRates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_rates, "BUCKETS_MAX", 2)
    for owner in ("a", "b", "c"):
        rates.add(owner, 100)
    rates.check("a")
    with pytest.raises(LimitExceeded):
        rates.check("c")
