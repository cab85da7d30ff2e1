"""Fingerprints: parts that stay the same match, whatever happens to the rest; flat windows do not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guards.coarse import F4, Coarse
from guards.fingerprints import KEPT, QUANTUM, SHARED, WINDOW, Fingerprints, shared
from tests.support.query_rows import OTHER_SALT, SALT, pictures

COARSE = Coarse.fit(pictures())
PRINTS = Fingerprints(SALT)


def of(x: F4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return PRINTS.of(COARSE.levels(x))


def test_a_picture_with_a_square_painted_over_matches_itself() -> None:
    painted = pictures().copy()
    painted[:, :, 4:10, 10:16] = 1 - painted[:, :, 4:10, 10:16]
    assert (shared(of(pictures()), of(painted)) >= SHARED).mean() > 0.85


def test_different_pictures_share_few() -> None:
    common = shared(of(pictures()[:500]), of(pictures()[500:]))
    assert (common >= SHARED).mean() == 0
    assert np.median(common) <= 1


def test_pictures_on_the_same_empty_background_do_not_match_by_it() -> None:
    with np.load("configs/fashion/outliers.npz") as outliers:
        digits = outliers["digits"].astype(np.float32) / 255
    assert (digits == 0).mean() > 0.7
    prints = of(digits)
    pairs = np.triu_indices(len(digits), 1)
    assert (shared(prints[pairs[0]], prints[pairs[1]]) >= SHARED).mean() < 0.001


def test_a_constant_picture_has_no_fingerprints_and_matches_nothing() -> None:
    flat = np.concatenate([np.full((1, 784), level, np.float32) for level in (0, 51, 255)])
    assert not PRINTS.of(flat).any()
    assert shared(PRINTS.of(flat), PRINTS.of(flat)).tolist() == [0, 0, 0]


def test_fingerprints_are_those_of_the_distinct_windows_that_are_not_flat() -> None:
    """Against windows as tuples: alike where these are, and different where they differ but for a few."""
    levels = COARSE.levels(pictures()[:50])
    for row in levels:
        digits = np.floor(row / QUANTUM).astype(int)
        windows = [tuple(digits[i : i + WINDOW].tolist()) for i in range(len(digits) - WINDOW + 1)]
        hashes = PRINTS._windows(row[None])[0]
        uneven = {window: value for window, value in zip(windows, hashes.tolist(), strict=True) if value}
        assert all(uneven.get(w, 0) == v for w, v in zip(windows, hashes.tolist(), strict=True))
        distinct = {window for window in windows if len(set(window)) > 1}
        assert len(distinct) - 3 <= len(set(uneven.values())) <= len(distinct)


def test_a_repeated_window_counts_once() -> None:
    stripes = np.tile(np.repeat([0, 255], 14), 28)[None].astype(np.float32)
    prints = PRINTS.of(stripes)
    kept = prints[prints > 0]
    assert len(kept) == len(np.unique(kept)) == 28
    assert shared(prints, prints)[0] == len(kept)


def test_another_salt_shares_nothing() -> None:
    other = Fingerprints(OTHER_SALT).of(COARSE.levels(pictures()))
    assert shared(of(pictures()), other).max() <= 2


@given(arrays.arrays(np.float32, (3, 60), elements=st.integers(0, 255).map(float)))
def test_a_row_has_the_same_fingerprints_in_every_batch(levels: F4) -> None:
    whole = PRINTS.of(levels)
    assert whole.shape == (3, KEPT) and whole.dtype == np.uint32
    np.testing.assert_array_equal(whole, np.concatenate([PRINTS.of(levels[i : i + 1]) for i in range(3)]))
    itself = shared(whole, whole)
    np.testing.assert_array_equal(itself, (whole > 0).sum(1))


def test_short_rows_are_refused_and_no_rows_are_none() -> None:
    with pytest.raises(ValueError, match="43 values a row, needs 44; use SimHash alone"):
        PRINTS.of(np.zeros((1, 43), np.float32))
    assert PRINTS.of(np.zeros((1, 44), np.float32)).shape == (1, KEPT)
    assert PRINTS.of(np.zeros((0, 784), np.float32)).shape == (0, KEPT)
