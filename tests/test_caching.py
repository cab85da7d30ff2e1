"""Results kept by key, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.caching import BoundedCache


def counted() -> tuple[BoundedCache[str, str], list[str]]:
    computed: list[str] = []

    def compute(key: str) -> str:
        computed.append(key)
        return key.upper()

    return BoundedCache(compute, entries=3, longest=4), computed


def test_a_result_is_computed_once() -> None:
    cache, computed = counted()
    assert [cache["key"] for _ in range(3)] == ["KEY"] * 3
    assert computed == ["key"]


def test_the_result_for_a_long_key_is_computed_each_time_and_not_kept() -> None:
    cache, computed = counted()
    assert [cache[key] for key in ("four", "fives", "fives", "four")] == ["FOUR", "FIVES", "FIVES", "FOUR"]
    assert computed == ["four", "fives", "fives"]
    assert list(cache) == ["four"]


def test_the_result_that_was_added_first_gives_way() -> None:
    cache, computed = counted()
    for key in ("a", "b", "c", "a", "d", "b", "a"):
        assert cache[key] == key.upper()
    assert computed == ["a", "b", "c", "d", "a"]


def test_an_error_is_raised_each_time_and_not_kept() -> None:
    cache: BoundedCache[str, int] = BoundedCache(int, entries=3, longest=4)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            cache["x"]
    assert not cache


@given(st.lists(st.text("ab", max_size=6), max_size=50))
def test_it_is_the_function_and_keeps_its_bounds(keys: list[str]) -> None:
    cache, _ = counted()
    for key in keys:
        assert cache[key] == key.upper()
        assert len(cache) <= 3
        assert all(len(kept) <= 4 for kept in cache)
