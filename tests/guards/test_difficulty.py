"""Difficulty: the weighted mean by hand, where it is large, and the same row in every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from guards.arrays import pack, unpack
from guards.difficulty import MOST_ROWS, Constant, Neighbours
from guards.rows import F8


def rows(n: int, f: int, seed: int = 0) -> tuple[NDArray[np.float32], F8, F8]:
    """A table, values and residuals that grow with the first column."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, f)).astype(np.float32)
    value = t.sum(1).astype(np.float64)
    return t, value, np.abs(rng.normal(size=n)) * (0.1 + np.maximum(t[:, :1].sum(1), 0))


def fitted(n: int, f: int) -> Neighbours:
    return Neighbours.fit(*rows(n, f), seed=0)


def by_hand(t: NDArray[np.float32], value: F8, residuals: F8, at: int) -> float:
    """The difficulty of a row of a table with one column, standardised by quartiles, 30 neighbours."""
    x = np.column_stack([t.astype(np.float64), value])
    spread = (np.quantile(x, 0.75, axis=0) - np.quantile(x, 0.25, axis=0)) / 1.349
    apart = np.sqrt(np.square((x - x[at]) / spread).sum(1))
    weight = np.maximum(np.sort(apart)[29] + 1e-3 - apart, 0)
    return float((weight * residuals).sum() / weight.sum() + 0.05 * residuals.mean())


def test_it_is_the_weighted_mean_residual_of_the_nearest_rows_plus_a_twentieth_of_the_mean() -> None:
    t, value, residuals = rows(200, 1)
    found = Neighbours.fit(t, value, residuals, seed=0).of(t, value)
    expected = [by_hand(t, value, residuals, at) for at in range(200)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_rows_are_difficult_where_residuals_are_large() -> None:
    t, value, _ = rows(500, 4, seed=1)
    size = fitted(3_000, 4).of(t, value)
    assert size[t[:, 0] > 1].mean() > 2 * size[t[:, 0] < -1].mean()


def test_errors_that_grow_with_the_predicted_value_are_seen_in_a_wide_table() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(size=(4_000, 40)).astype(np.float32)
    value = rng.lognormal(0, 1, 4_000)
    residuals = np.abs(rng.normal(size=4_000)) * value
    size = Neighbours.fit(t[:2_000], value[:2_000], residuals[:2_000], seed=0).of(t[2_000:], value[2_000:])
    tenth = np.argsort(value[2_000:])
    assert size[tenth[-200:]].mean() > 5 * size[tenth[:200]].mean()


@pytest.mark.parametrize(("n", "f"), [(1, 0), (3, 1), (60, 3), (2_500, 7), (1_500, 120)])
def test_a_row_is_as_difficult_alone_as_in_any_batch_to_the_last_bit(n: int, f: int) -> None:
    difficulty = fitted(n, f)
    t, value, _ = rows(300, f, seed=5)
    together = difficulty.of(t, value)
    alone = np.concatenate([difficulty.of(t[i : i + 1], value[i : i + 1]) for i in range(300)])
    sevens = np.concatenate([difficulty.of(t[i : i + 7], value[i : i + 7]) for i in range(0, 300, 7)])
    assert together.tobytes() == alone.tobytes() == sevens.tobytes()
    turned = difficulty.of(t[::-1], value[::-1])[::-1]
    assert together.tobytes() == turned.tobytes()


def test_noise_in_the_value_moves_it_no_more_than_in_proportion() -> None:
    """No neighbour jumps in or out: where the k-th changes it weighs nothing."""
    difficulty = fitted(2_000, 3)
    t, value, _ = rows(2_000, 3, seed=2)
    noise = np.random.default_rng(0).uniform(-1e-6, 1e-6, 2_000)
    before, after = difficulty.of(t, value), difficulty.of(t, value + noise)
    assert (np.abs(after - before) < 1e-4 * before).all()


def test_at_most_1024_rows_are_kept_drawn_by_the_seed() -> None:
    t, value, residuals = rows(3_000, 2)
    first, again, other = (Neighbours.fit(t, value, residuals, seed) for seed in (0, 0, 1))
    assert first.rows.shape == (3, MOST_ROWS)
    assert first.rows.tobytes() == again.rows.tobytes() != other.rows.tobytes()


@given(st.lists(st.sampled_from([0.0, 1.0, -3e38, 3e38, np.nan, np.inf, -np.inf]), min_size=3, max_size=3))
@settings(max_examples=60)
def test_every_row_has_a_finite_difficulty_above_zero(cells: list[float]) -> None:
    """Missing values, constant columns, wild numbers, whether in fit or served."""
    t, value, residuals = rows(90, 3)
    t[:, 1] = 7.0
    t[:, 2] = np.nan
    t[:9, 0] = np.resize(cells, 9)
    difficulty = Neighbours.fit(t, value, residuals, seed=0)
    size = difficulty.of(np.array([cells], np.float32), np.array([1e300]))
    assert np.isfinite(size).all() and (size > 0).all()


def test_a_model_that_never_errs_has_a_small_difficulty_and_no_zero() -> None:
    t, value, _ = rows(100, 2)
    assert (Neighbours.fit(t, value, np.zeros(100), seed=0).of(t, value) == 0.05).all()


@pytest.mark.parametrize("t", [None, np.zeros((2, 3), np.float32), np.zeros((1, 2), np.float32)])
def test_a_table_of_another_width_is_refused(t: NDArray[Any] | None) -> None:
    with pytest.raises(ValueError, match=r"expected \[2, 2\]"):
        fitted(50, 2).of(t, np.zeros(2))


@pytest.mark.parametrize("difficulty", [Constant(2.5), Neighbours.fit(*rows(40, 2), seed=0)])
def test_it_is_stored_and_read_bit_identical(difficulty: Constant | Neighbours) -> None:
    t, value, _ = rows(30, 2, seed=3)
    arrays = pack("d", difficulty)
    assert all(array.dtype != object for array in arrays.values())
    read = unpack(type(difficulty), "d", arrays)
    assert read.of(t, value).tobytes() == difficulty.of(t, value).tobytes()
