"""The squeezers are the paper's, in the order in which their answers are expected back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from guards.squeezers import answer_change, median_2x2, reduce_bits, variants
from tests.support.guard_world import pictures

RNG = np.random.default_rng(0)


def test_the_median_is_scipys() -> None:
    x = RNG.uniform(size=(3, 2, 7, 5)).astype(np.float32)
    expected = median_filter(x, size=(1, 1, 2, 2), mode="reflect")
    np.testing.assert_array_equal(median_2x2(x), expected)


def test_fewer_bits_keep_the_ends_and_the_nearest_level() -> None:
    x = np.array([0, 0.2, 0.49, 0.51, 1], np.float32).reshape(1, 1, 1, 5)
    assert reduce_bits(x, 1).ravel().tolist() == [0, 0, 0, 1, 1]
    assert len(np.unique(reduce_bits(RNG.uniform(size=(1, 1, 40, 40)).astype(np.float32), 4))) == 16
    assert reduce_bits(x, 4).dtype == np.float32


def test_variants_are_stacked_one_squeezer_after_the_other() -> None:
    x = pictures(RNG, np.array([0, 1, 2]))
    both = variants(x, 3)
    np.testing.assert_array_equal(both, np.concatenate([reduce_bits(x, 3), median_2x2(x)]))
    with pytest.raises(ValueError, match=r"squeeze: x has shape \[3, 4\]"):
        variants(np.zeros((3, 4), np.float32), 3)


def test_distance_is_the_larger_l1_over_the_variants() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    squeezed = np.array([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    assert answer_change(p, squeezed).tolist() == pytest.approx([0.2, 1.0])
    for wrong in (squeezed[:3], squeezed[:, :1], squeezed[:2]):
        with pytest.raises(ValueError, match="expected two a row"):
            answer_change(p, wrong)
