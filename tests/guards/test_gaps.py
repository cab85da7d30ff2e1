"""Gaps: a usual pattern of missing values costs nothing, a rare one more than its columns by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from guards.gaps import PATTERNS, Gaps
from guards.rows import F8

RNG = np.random.default_rng(0)
N = 1000


def rows(*gone: tuple[int, ...], f: int = 4) -> F8:
    x = np.zeros((len(gone), f))
    for row, columns in zip(x, gone, strict=True):
        row[list(columns)] = np.nan
    return x


def two_forms() -> F8:
    """Columns 0 and 1 are missing together in half of the rows, column 2 alone in 30 %, column 3 never."""
    x = np.zeros((N, 4))
    x[: N // 2, :2] = np.nan
    x[RNG.random(N) < 0.3, 2] = np.nan
    return x


def test_nothing_missing_costs_nothing_and_a_first_gap_much() -> None:
    gaps = Gaps.fit(np.zeros((N, 4)))
    assert not gaps.ever
    none, one, two = gaps.rarities(rows((), (1,), (1, 2)))
    assert none == 0.0
    assert one == pytest.approx(np.log(N + 1))
    assert two == pytest.approx(2 * np.log(N + 1))


def test_known_patterns_have_the_log_of_their_share() -> None:
    x = two_forms()
    gaps = Gaps.fit(x)
    assert gaps.ever
    gone = np.isnan(x)
    for pattern in ((), (0, 1), (2,), (0, 1, 2)):
        flags = np.isin(np.arange(4), pattern)
        share = (gone == flags).all(1).mean()
        assert gaps.rarities(rows(pattern))[0] == pytest.approx(-np.log(share))


def test_a_combination_that_never_was_is_rare_though_each_of_its_gaps_is_common() -> None:
    gaps = Gaps.fit(two_forms())
    assert gaps.rarities(rows((0,), (1, 2))).min() > np.log(N) - 0.1
    assert gaps.rarities(rows((3,)))[0] > np.log(N)


def test_an_infinite_value_is_missing() -> None:
    gaps = Gaps.fit(two_forms())
    x = rows((0, 1))
    np.testing.assert_array_equal(gaps.rarities(np.where(np.isnan(x), -np.inf, x)), gaps.rarities(x))


def test_more_patterns_than_are_kept_cost_the_nearest_and_the_way_there() -> None:
    x = np.where(RNG.random((N, 12)) < 0.3, np.nan, 0.0)
    gaps = Gaps.fit(x)
    assert len(gaps.nats) == PATTERNS
    u = gaps.rarities(x)
    assert np.isfinite(u).all()
    assert (u > 0).all()
    assert gaps.unseen < 1.0
