"""Coarse rows: whole numbers, the same in every batch, of pictures of any size and tables of any width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.arrays import load, pack, save, unpack
from guards.coarse import EXACT, LEVELS, MOST_COMPONENT, Coarse
from tests.support.query_rows import diamonds, letters, pictures


@pytest.mark.parametrize("x", [pictures(), letters()], ids=["pictures", "letters"])
def test_every_number_is_whole_and_every_sum_exact(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    coarse = Coarse.fit(x)
    levels = coarse.levels(x)
    assert (levels == np.rint(levels)).all() and levels.min() >= 0 and levels.max() <= LEVELS
    assert (coarse.axes == np.rint(coarse.axes)).all()
    assert (LEVELS * np.abs(coarse.axes.astype(np.float64)).sum(0)).max() <= EXACT
    exact = levels.astype(np.float64) @ coarse.axes.astype(np.float64)
    np.testing.assert_array_equal(levels @ coarse.axes, exact)
    found = coarse.components(levels)
    assert (found == np.rint(found)).all() and np.abs(found).max() <= MOST_COMPONENT


def test_components_are_half_whitened() -> None:
    """The variance of a component is the root of its principal component's, up to one factor."""
    coarse = Coarse.fit(pictures())
    spread = coarse.components(coarse.levels(pictures())).std(0)
    pooled = pictures().reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    expected = np.linalg.eigvalsh(np.cov(pooled.T))[::-1][:48] ** 0.25
    np.testing.assert_allclose(spread / spread[0], expected / expected[0], rtol=0.03)


def test_a_stored_one_reads_rows_the_same(tmp_path: Path) -> None:
    numbers, texts = diamonds()
    coarse = Coarse.fit(numbers, texts)
    save(tmp_path / "coarse.npz", pack("coarse", coarse))
    back = unpack(Coarse, "coarse", load(tmp_path / "coarse.npz"))
    np.testing.assert_array_equal(
        back.components(back.levels(numbers, texts)), coarse.components(coarse.levels(numbers, texts))
    )


@pytest.mark.parametrize("shape", [(3, 64, 48), (64, 48, 3), (1, 33, 8), (40, 5, 5), (1, 2, 3)])
def test_pictures_of_any_size_and_order_of_channels_are_read(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).random((20, *shape), dtype=np.float32)
    coarse = Coarse.fit(x)
    levels = coarse.levels(x)
    assert levels.shape[1] <= 4096
    assert coarse.components(levels).shape[1] <= 48
    np.testing.assert_array_equal(coarse.levels(x[:1]), levels[:1])


def test_channels_last_sees_the_same_picture_as_channels_first() -> None:
    x = np.random.default_rng(0).random((30, 3, 64, 64), dtype=np.float32)
    last = np.moveaxis(x, 1, 3).copy()
    first_levels, last_levels = Coarse.fit(x).levels(x), Coarse.fit(last).levels(last)
    np.testing.assert_array_equal(np.sort(first_levels, axis=1), np.sort(last_levels, axis=1))


def test_nan_and_infinity_count_as_the_ends() -> None:
    coarse = Coarse.fit(letters())
    x = letters()[:3].copy()
    x[0, 0], x[1, 0], x[2, 0] = np.nan, -np.inf, np.inf
    assert coarse.levels(x)[:, 0].tolist() == [0, 0, LEVELS]


def test_a_table_of_one_column_and_a_constant_column_are_fitted() -> None:
    x = np.random.default_rng(0).standard_normal((50, 1)).astype(np.float32)
    assert Coarse.fit(x).axes.shape == (1, 1)
    two = np.concatenate([x, np.full_like(x, 7)], axis=1)
    coarse = Coarse.fit(two)
    assert coarse.axes.shape[1] == 1
    assert coarse.components(coarse.levels(two)).std() > 0


def test_no_rows_are_read_as_no_rows() -> None:
    for x in (pictures(), letters()):
        coarse = Coarse.fit(x)
        assert coarse.components(coarse.levels(x[:0])).shape == (0, coarse.axes.shape[1])


def test_what_cannot_be_fitted_or_read_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="expected a table"):
        Coarse.fit(np.zeros((9, 2, 2), np.float32))
    with pytest.raises(ValueError, match="needs 8 finite rows"):
        Coarse.fit(np.zeros((7, 2), np.float32))
    with pytest.raises(ValueError, match="all alike"):
        Coarse.fit(np.zeros((9, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match="5000 values a row, at most 4096"):
        Coarse.fit(np.random.default_rng(0).random((9, 5000), dtype=np.float32))
    coarse = Coarse.fit(letters())
    with pytest.raises(ValueError, match=r"x has shape \[1000, 1, 28, 28\], expected \['n', 16\]"):
        coarse.levels(pictures())
    with pytest.raises(ValueError, match=r"texts \[3, 2\], expected \[3, 0\]"):
        coarse.levels(letters()[:3], np.full((3, 2), "a"))


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_row_reads_the_same_in_every_batch(n: int, seed: int) -> None:
    rows = np.random.default_rng(seed).choice(1000, n)
    coarse = FITTED
    whole = coarse.components(coarse.levels(pictures()[rows]))
    alone = np.concatenate([coarse.components(coarse.levels(pictures()[[row]])) for row in rows])
    np.testing.assert_array_equal(whole, alone)


FITTED = Coarse.fit(pictures())
