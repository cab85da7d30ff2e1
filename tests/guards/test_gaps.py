"""Gaps: a usual pattern of missing values costs nothing, a rare one more than its columns by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.gaps import PATTERNS, Gaps

Here = NDArray[np.bool_]
RNG = np.random.default_rng(0)
N = 1000


def rows(*gone: tuple[int, ...]) -> Here:
    """Rows of four values, of which these are missing."""
    return np.stack([~np.isin(np.arange(4), columns) for columns in gone])


def two_forms() -> Here:
    """Columns 0 and 1 are missing together in half of the rows, column 2 alone in 30 %, column 3 never."""
    here = np.ones((N, 4), np.bool_)
    here[: N // 2, :2] = False
    here[RNG.random(N) < 0.3, 2] = False
    return here


def test_nothing_missing_costs_nothing_and_a_first_gap_much() -> None:
    gaps = Gaps.fit(np.ones((N, 4), np.bool_))
    assert not gaps.ever
    none, one, two = gaps.rarities(rows((), (1,), (1, 2)))
    assert none == 0.0
    assert one == pytest.approx(np.log(N + 1))
    assert two == pytest.approx(2 * np.log(N + 1))


def test_known_patterns_have_the_log_of_their_share() -> None:
    here = two_forms()
    gaps = Gaps.fit(here)
    assert gaps.ever
    for pattern in ((), (0, 1), (2,), (0, 1, 2)):
        share = (here == rows(pattern)).all(1).mean()
        assert gaps.rarities(rows(pattern))[0] == pytest.approx(-np.log(share))


def test_a_combination_that_never_was_is_rare_though_each_of_its_gaps_is_common() -> None:
    gaps = Gaps.fit(two_forms())
    assert gaps.rarities(rows((0,), (1, 2))).min() > np.log(N) - 0.1
    assert gaps.rarities(rows((3,)))[0] > np.log(N)


def test_more_patterns_than_are_kept_cost_the_nearest_and_the_way_there() -> None:
    here = RNG.random((N, 12)) > 0.3
    gaps = Gaps.fit(here)
    assert len(gaps.nats) == PATTERNS
    u = gaps.rarities(here)
    assert np.isfinite(u).all()
    assert (u > 0).all()
    assert gaps.unseen < 1.0
