"""Intervals with a width limit: counts by hand, against a plan for all rows, and without a limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.interval import Interval, planned_miscoverage
from guards.rows import F8
from guards.selective import Counts
from guards.width_limit import within_width

Rows = tuple[NDArray[np.float32], F8, F8]
Ends = tuple[F8 | None, F8 | None]
R, DELTA, PILOT, TEST = 0.1, 0.05, 1_000, 500


def rows(rng: np.random.Generator, n: int) -> Rows:
    """Errors grow less than the value does, and some large values are far off."""
    t = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    value = np.exp(4 * t[:, 0].astype(np.float64))
    tails = np.where(rng.uniform(size=n) < 0.15 * t[:, 0] ** 3, 12.0, 0.5)
    return t, value, value + np.sqrt(value) * rng.uniform(-1, 1, n) * tails


def fitted(first: Rows, pilot: Rows, miscoverage: float) -> Interval:
    (t, value, y), (pilot_t, pilot_value, pilot_y) = first, pilot
    return Interval.fit(
        t, value, y, None, None, pilot_t, pilot_value, pilot_y, None, None, miscoverage, seed=0
    )


def limited(interval: Interval, pilot: Rows, widest: F8) -> Interval:
    return within_width(interval, *pilot, None, None, widest, R, DELTA, TEST)


def leaving(interval: Interval, at: Rows, widest: F8) -> Counts:
    """The rows that may leave, and those of them outside, by the served bounds."""
    low, high = interval.bounds(at[0], at[1], None, None)
    leaves, outside = high - low <= widest, (at[2] < low) | (at[2] > high)
    return Counts(int(leaves.sum()), int((leaves & outside).sum()))


def test_rows_that_leave_pass_the_test_where_a_plan_for_all_rows_fails_it() -> None:
    rng = np.random.default_rng(0)
    first = rows(rng, 800)
    planned = planned_miscoverage(R, DELTA, PILOT, TEST)
    failed = failed_unlimited = 0
    for _ in range(60):
        pilot, test = rows(rng, PILOT), rows(rng, TEST)
        for_all = fitted(first, pilot, planned)
        found = limited(for_all, pilot, 0.8 * pilot[1])
        failed += not leaving(found, test, 0.8 * test[1]).certifies(R, DELTA)
        failed_unlimited += not leaving(for_all, test, 0.8 * test[1]).certifies(R, DELTA)
    assert failed <= 9, "5 % are expected; more than this happens once in ten thousand runs"
    assert failed_unlimited >= 20


def test_without_a_limit_it_is_the_plan_for_all_rows() -> None:
    rng = np.random.default_rng(1)
    first, pilot = rows(rng, 300), rows(rng, PILOT)
    for_all = fitted(first, pilot, planned_miscoverage(R, DELTA, PILOT, TEST))
    found = limited(for_all, pilot, np.full(PILOT, np.inf))
    assert found.miscoverage == pytest.approx(for_all.miscoverage, abs=2 / PILOT)
    assert found.q == pytest.approx(for_all.q, rel=0.02)


def test_where_no_width_can_pass_the_best_chance_is_taken() -> None:
    """Nothing is narrow enough, and the later test says so: no row is left to certify anything."""
    rng = np.random.default_rng(2)
    pilot = rows(rng, PILOT)
    for_all = fitted(rows(rng, 300), pilot, 0.05)
    found = limited(for_all, pilot, np.zeros(PILOT))
    assert leaving(found, pilot, np.zeros(PILOT)) == Counts(0, 0)
    assert np.isfinite(found.q)


@pytest.mark.parametrize("quantiles", [False, True])
def test_the_counts_behind_it_are_those_of_the_served_bounds(quantiles: bool) -> None:
    rng = np.random.default_rng(3)
    t, value, y = rows(rng, 400)
    ends: Ends = (value - 1.0, value + 2.0) if quantiles else (None, None)
    interval = Interval.fit(t, value, y, *ends, t, value, y, *ends, 0.2, seed=0)
    scores = interval.scores(t, value, y, *ends)
    for most in (5, 40, 150):
        q = scores.factor(most)
        low, high = replace(interval, q=q).bounds(t, value, *ends)
        np.testing.assert_allclose(high - low, np.maximum(scores.width + 2 * q, 0) * scores.size)
        assert ((y < low) | (y > high)).sum() == (scores.needed > q).sum() == most
