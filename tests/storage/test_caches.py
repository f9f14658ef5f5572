"""Caches in memory: each within its bound, and all within one budget."""

import gc

import pytest
from prometheus_client import REGISTRY

from storage.bounded_cache import BoundedCache
from storage.cache_budget import CacheBudget


def _cache(
    budget: CacheBudget, name: str = "test", *, weight_max: int = 1_000_000, bytes_each: int = 1
) -> BoundedCache[int, str]:
    return BoundedCache(name, weight_max=weight_max, weigh=len, bytes_each=bytes_each, budget=budget)


def _sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    cache: BoundedCache[str, int] = BoundedCache("test", weight_max=2, budget=CacheBudget())
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [key for key, _ in cache.items()] == ["a", "c"]
    assert "a" in cache
    assert "b" not in cache
    assert (cache.hits, cache.misses, cache.evictions) == (1, 0, 1)


def test_a_value_that_is_replaced_counts_once() -> None:
    budget = CacheBudget()
    cache = _cache(budget, bytes_each=3)
    cache.put(1, "long")
    cache.put(1, "s")
    assert (len(cache), cache.size_bytes) == (1, 3)
    cache.discard(1)
    cache.discard(1)
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_what_is_heavier_than_the_bound_is_not_kept() -> None:
    cache = _cache(CacheBudget(), weight_max=3)
    cache.put(1, "a")
    cache.put(2, "long")
    assert len(cache) == 0


def test_the_largest_cache_makes_room_for_the_others() -> None:
    budget = CacheBudget(1000)
    large, small = _cache(budget), _cache(budget)
    for number in range(90):
        large.put(number, 10 * "a")
    for number in range(8):
        small.put(number, 10 * "b")
    assert (large.evictions, small.evictions) == (0, 0)
    small.put(8, 200 * "b")
    assert large.size_bytes + small.size_bytes <= 1000
    assert small.evictions == 0
    assert large.get(0) is None
    assert large.get(89) is not None
    assert large.size_bytes > 600


def test_caches_share_alike_if_all_want_more() -> None:
    budget = CacheBudget(3200)
    caches = [_cache(budget) for _ in range(4)]
    for number in range(1000):
        for cache in caches:
            cache.put(number, 10 * "a")
    assert sum(cache.size_bytes for cache in caches) <= 3200
    assert min(cache.size_bytes for cache in caches) >= 700


def test_a_cache_that_is_no_more_takes_nothing() -> None:
    budget = CacheBudget(1000)
    first = _cache(budget)
    first.put(1, 900 * "a")
    del first
    gc.collect()
    second = _cache(budget)
    for number in range(9):
        second.put(number, 100 * "a")
    assert second.evictions == 0


def test_what_is_cleared_or_discarded_makes_room() -> None:
    budget = CacheBudget(1000)
    first, second = _cache(budget), _cache(budget)
    first.put(1, 900 * "a")
    first.clear()
    second.put(1, 900 * "a")
    second.discard(1)
    first.put(1, 900 * "a")
    assert (first.evictions, second.evictions) == (0, 0)
    assert (first.size_bytes, second.size_bytes) == (900, 0)


def test_a_smaller_budget_holds_at_once() -> None:
    budget = CacheBudget(1000)
    cache = _cache(budget)
    for number in range(9):
        cache.put(number, 100 * "a")
    budget.set_bytes_max(500)
    assert cache.size_bytes <= 500
    assert cache.get(8) is not None
    assert budget.bytes_max == 500


@pytest.mark.parametrize("bytes_max", [1, 99])
def test_what_does_not_fit_at_all_is_not_kept(bytes_max: int) -> None:
    cache = _cache(CacheBudget(bytes_max))
    cache.put(1, 100 * "a")
    assert len(cache) == 0


def test_metrics_tell_of_each_name() -> None:
    budget = CacheBudget(1000)
    one, other = _cache(budget, "test_told"), _cache(budget, "test_told")
    one.put(1, "abc")
    other.put(1, "abcd")
    assert one.get(1) is not None
    assert other.get(2) is None
    budget.publish()
    budget.publish()
    assert _sample("heliograph_cache_bytes", cache="test_told") == 7
    assert _sample("heliograph_cache_entries", cache="test_told") == 2
    assert _sample("heliograph_cache_lookups_total", cache="test_told", outcome="hit") == 1
    assert _sample("heliograph_cache_lookups_total", cache="test_told", outcome="miss") == 1
    assert _sample("heliograph_cache_budget_bytes") == 1000
    budget.set_bytes_max(5)
    budget.publish()
    assert _sample("heliograph_cache_evictions_total", cache="test_told") == 1
