"""The table against a dict: finds what was put in, forgets what is over, and stays small and quick."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from guards.principal_table import SHARDS, SWEEP_EVERY, PrincipalTable


def _is_over(values: NDArray[np.float64], now_s: float) -> NDArray[np.bool_]:
    return np.asarray(values[:, 0] <= now_s)


def add(table: PrincipalTable, name: str, until_s: float, now_s: float) -> None:
    values, at = table.entry(name, now_s)
    values[at] = until_s


@settings(max_examples=20)
@given(st.integers(1, 20_000), st.integers(0, 2**32))
def test_finds_every_number_again(size: int, seed: int) -> None:
    table = PrincipalTable(2, _is_over)
    kept = dict(zip(map(str, range(size)), np.random.default_rng(seed).random(size) + 1, strict=True))
    for name, number in kept.items():
        values, at = table.entry(name, 0.0)
        assert values[at] == values[at + 1] == 0.0, "a new row is zero"
        values[at] = values[at + 1] = number
    for name, number in kept.items():
        values, at = table.entry(name, 0.0)
        assert values[at] == values[at + 1] == number
    assert len(table) == size


def test_tags_stay_with_their_numbers() -> None:
    table = PrincipalTable(1, _is_over, tagged=True)
    for i in range(5000):
        values, at = table.entry(str(i), 0.0, lambda name: name.encode().rjust(16))
        values[at] = i + 1
    for tag, (values, at) in table.entries():
        assert values[at] == int(tag) + 1
    tags, numbers = table.content()
    assert dict(zip((int(tag.tobytes()) for tag in tags), numbers[:, 0], strict=True)) == {
        i: i + 1 for i in range(5000)
    }


def test_what_is_over_makes_room_and_what_is_not_stays() -> None:
    table = PrincipalTable(1, _is_over)
    for i in range(100_000):
        add(table, f"short {i}", i + 10, i)
        if i % 1000 == 0:
            add(table, f"long {i}", 1e9, i)
    assert len(table) < 4000 + 100, "what is over is not kept"
    for i in range(0, 100_000, 1000):
        values, at = table.entry(f"long {i}", 100_000.0)
        assert values[at] == 1e9


def test_a_flood_of_names_is_forgotten_by_the_traffic_that_follows() -> None:
    table = PrincipalTable(1, _is_over)
    for i in range(50_000):
        add(table, str(i), 1.0, 0.0)
    flooded = table.bytes_held()
    for _ in range(SHARDS * SWEEP_EVERY):
        table.entry("one", 2.0)
    assert len(table) <= 1
    assert table.bytes_held() < flooded / 10


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_holds_what_is_stated(columns: int) -> None:
    table, size = PrincipalTable(columns, _is_over, tagged=True), 100_000
    most = 0.0
    for i in range(size):
        add(table, str(i), 1.0, 0.0)
        if i >= size // 2 and i % 5000 == 0:
            most = max(most, table.bytes_held() / (i + 1))
    assert most <= (24 + 8 * columns) / 0.55 * 1.05


def test_names_that_are_alike_share_nothing() -> None:
    table = PrincipalTable(1, _is_over)
    names = ["", "\0", "\0model", "a", "A", "a ", "ä", "a" * 10_000]
    for i, name in enumerate(names):
        add(table, name, i + 1.0, 0.0)
    for i, name in enumerate(names):
        values, at = table.entry(name, 0.0)
        assert values[at] == i + 1
