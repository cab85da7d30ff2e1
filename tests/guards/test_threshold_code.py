"""Threshold code: as many bits differ as columns are apart, whatever the salt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.coarse import F4, NARROW, Coarse
from guards.query_sketch import Sketcher, code_of
from guards.simhash import SimHash, hamming
from guards.threshold_code import ThresholdCode
from tests.support.query_rows import OTHER_SALT, SALT, diamonds, letters, pictures

COARSE = Coarse.fit(letters())
CODE = ThresholdCode(16, SALT)


def moved(x: F4, columns: int, steps: int, seed: int = 0) -> F4:
    """Rows with so many columns moved by so many whole numbers."""
    rng, found = np.random.default_rng(seed), x.copy()
    for row in found:
        at = rng.choice(x.shape[1], columns, replace=False)
        row[at] += np.where(row[at] + steps > 15, -steps, steps)
    return found


def apart(a: F4, b: F4, code: ThresholdCode = CODE) -> float:
    return float(hamming(code.bits(COARSE.levels(a)), code.bits(COARSE.levels(b))).mean())


def test_distance_is_the_sum_of_the_distances_of_the_columns() -> None:
    x = letters()
    one = apart(x, moved(x, 1, 1))
    assert 0.9 < one < 2
    assert apart(x, moved(x, 3, 1)) == pytest.approx(3 * one, rel=0.15)
    assert apart(x, moved(x, 1, 3)) == pytest.approx(3 * one, rel=0.25)


@given(st.integers(1, NARROW), st.integers(0, 99))
def test_every_column_has_its_share_of_the_bits_in_its_own_strata(columns: int, seed: int) -> None:
    salt = seed.to_bytes(16)
    code = ThresholdCode(columns, salt)
    counts = np.bincount(code._columns, minlength=columns)
    assert counts.sum() == 256 and counts.max() - counts.min() <= 1
    low, high = np.full((2, columns), np.float32(128))
    low -= 500
    high += 500
    assert hamming(code.bits(low[None]), code.bits(high[None]))[0] == 256
    half = np.sort(code._thresholds[code._columns == 0])
    strata = np.floor((half - 88) / 80 * len(half))
    assert np.abs(strata - np.arange(len(half))).max() <= 1, "one threshold in each"


def test_another_salt_has_other_thresholds_and_another_order() -> None:
    levels, other = COARSE.levels(letters()), ThresholdCode(16, OTHER_SALT)
    assert hamming(CODE.bits(levels), other.bits(levels)).mean() > 60
    assert apart(letters(), moved(letters(), 2, 1), other) == pytest.approx(
        apart(letters(), moved(letters(), 2, 1)), rel=0.15
    )


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    levels = COARSE.levels(letters()[:20])
    single = np.concatenate([CODE.bits(levels[i : i + 1]) for i in range(20)])
    np.testing.assert_array_equal(CODE.bits(levels), single)
    assert CODE.bits(levels[:0]).shape == (0, 4)


def test_a_few_moved_columns_are_found_more_often_than_by_planes_at_the_same_honest_share() -> None:
    x = letters()
    planes = SimHash(COARSE, SALT)
    held, tested = x[:500], x[500:]
    for columns, steps in ((2, 1), (1, 3)):
        found = []
        for sketch in (lambda rows: CODE.bits(COARSE.levels(rows)), planes.sketch):
            nearest = np.sort(hamming(sketch(tested)[:, None], sketch(held)[None]).min(1))
            cut = nearest[int(0.1 * len(nearest))] - 1  # fewer than a tenth are within
            found.append(
                float((hamming(sketch(tested), sketch(moved(tested, columns, steps))) <= cut).mean())
            )
        assert found[0] > found[1] + 0.2, (columns, steps)


def test_narrow_tables_have_thresholds_and_all_others_planes() -> None:
    numbers, texts = diamonds()
    rng = np.random.default_rng(0)
    for coarse, kind in (
        (COARSE, ThresholdCode),
        (Coarse.fit(numbers, texts), ThresholdCode),
        (Coarse.fit(rng.standard_normal((100, 65)).astype(np.float32)), SimHash),
        (Coarse.fit(pictures()), SimHash),
    ):
        assert isinstance(code_of(coarse, SALT), kind)
    x = rng.standard_normal((100, NARROW)).astype(np.float32)
    sketches = Sketcher(Coarse.fit(x), SALT).sketch(x)
    assert hamming(sketches.bits[:50], sketches.bits[50:]).min() > 20


@pytest.mark.parametrize("columns", [0, 65])
def test_no_columns_and_too_many_are_refused(columns: int) -> None:
    with pytest.raises(ValueError, match=f"{columns} columns, expected 1 .. 64"):
        ThresholdCode(columns, SALT)
