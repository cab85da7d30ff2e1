"""Fingerprints: parts that stay the same match, whatever happens to the rest; flat windows do not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guards.coarse import F4, Coarse
from guards.fingerprints import KEPT, LARGEST, QUANTUM, WINDOW, WORDS, Fingerprints, Prints, shared
from guards.simhash import U8
from tests.support.query_rows import OTHER_SALT, SALT, pictures

COARSE = Coarse.fit(pictures())
PRINTS = Fingerprints(SALT, 784)


SHARED = 12
"""Of unrelated pictures hardly any two share as many."""


def of(x: F4) -> U8:
    return PRINTS.of(COARSE.levels(x)).marks


def test_a_picture_with_a_square_painted_over_matches_itself() -> None:
    painted = pictures().copy()
    painted[:, :, 4:10, 10:16] = 1 - painted[:, :, 4:10, 10:16]
    assert (shared(of(pictures()), of(painted)) >= SHARED).mean() > 0.85


def test_different_pictures_share_few() -> None:
    common = shared(of(pictures()[:500]), of(pictures()[500:]))
    assert (common >= SHARED).mean() == 0
    assert np.median(common) <= 3, "two of them by chance: 48 marks of 1,024 each"


def test_pictures_on_the_same_empty_background_do_not_match_by_it() -> None:
    with np.load("configs/fashion/outliers.npz") as outliers:
        digits = outliers["digits"].astype(np.float32) / 255
    assert (digits == 0).mean() > 0.7
    prints = of(digits)
    pairs = np.triu_indices(len(digits), 1)
    assert (shared(prints[pairs[0]], prints[pairs[1]]) >= SHARED).mean() < 0.001


def test_a_constant_picture_has_no_fingerprints_and_matches_nothing() -> None:
    flat = np.concatenate([np.full((1, 784), level, np.float32) for level in (0, 51, 255)])
    prints = PRINTS.of(flat)
    assert not prints.largest.any() and not prints.marks.any()
    assert shared(prints.marks, prints.marks).tolist() == [0, 0, 0]


def test_fingerprints_are_those_of_the_distinct_windows_that_are_not_flat() -> None:
    """Against windows as tuples: alike where these are, and different where they differ but for a few."""
    levels = COARSE.levels(pictures()[:50])
    for row in levels:
        digits = np.floor(row / QUANTUM).astype(int)
        windows = [tuple(digits[i : i + WINDOW].tolist()) for i in range(len(digits) - WINDOW + 1)]
        hashes = PRINTS._windows(row[None])[0].T.reshape(-1)[: len(windows)]
        uneven = {window: value for window, value in zip(windows, hashes.tolist(), strict=True) if value}
        assert all(uneven.get(w, 0) == v for w, v in zip(windows, hashes.tolist(), strict=True))
        distinct = {tuple(np.subtract(window, window[0])) for window in windows if len(set(window)) > 1}
        assert len(distinct) - 3 <= len(set(uneven.values())) <= len(distinct)


def test_a_repeated_window_counts_once() -> None:
    stripes = np.tile(np.repeat([0, 255], 14), 28)[None].astype(np.float32)
    prints = PRINTS.of(stripes)
    assert len(np.unique(prints.largest)) == LARGEST
    assert 3 <= shared(prints.marks, prints.marks)[0] <= 28


def test_another_salt_shares_nothing() -> None:
    other = Fingerprints(OTHER_SALT, 784).of(COARSE.levels(pictures())).marks
    common, counts = (
        shared(of(pictures()), other),
        [np.bitwise_count(x).sum(1) for x in (of(pictures()), other)],
    )
    assert common.mean() == pytest.approx((counts[0] * counts[1]).mean() / 1024, abs=0.2), "as by chance"
    assert common.max() < SHARED


@given(arrays.arrays(np.float32, (3, 60), elements=st.integers(0, 255).map(float)))
def test_a_row_has_the_same_fingerprints_in_every_batch(levels: F4) -> None:
    prints = Fingerprints(SALT, 60)
    whole, single = prints.of(levels), [prints.of(levels[i : i + 1]) for i in range(3)]
    assert whole.largest.shape == (3, LARGEST) and whole.marks.shape == (3, WORDS)
    np.testing.assert_array_equal(whole.largest, np.concatenate([one.largest for one in single]))
    np.testing.assert_array_equal(whole.marks, np.concatenate([one.marks for one in single]))
    assert (np.diff(whole.largest.astype(np.int64), axis=1) <= 0).all()
    assert (shared(whole.marks, whole.marks) <= KEPT).all()


def test_a_picture_that_is_shifted_keeps_most_of_its_fingerprints() -> None:
    for moved in ((0, 1), (1, 0), (1, 1)):
        shifted = np.roll(pictures()[:300], moved, (2, 3))
        assert (shared(of(pictures()[:300]), of(shifted)) >= SHARED).mean() > 0.95


def test_short_rows_are_refused_and_no_rows_are_none() -> None:
    with pytest.raises(ValueError, match="43 values a row, needs 44; use SimHash alone"):
        Fingerprints(SALT, 43)
    with pytest.raises(ValueError, match="783 values a row, expected 784"):
        PRINTS.of(np.zeros((1, 783), np.float32))
    assert Fingerprints(SALT, 44).of(np.zeros((1, 44), np.float32)).marks.shape == (1, WORDS)
    assert PRINTS.of(np.zeros((0, 784), np.float32)).largest.shape == (0, LARGEST)
    assert [one.shape for one in Prints.none(3)] == [(3, 0), (3, 0)]
