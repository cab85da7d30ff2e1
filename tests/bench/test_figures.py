"""The arithmetic of the figures: intervals, AUROC, percentiles, the beta-binomial."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.measured_shares import MeasuredShare, PromiseVerdict, interval
from bench.measurements import LatencySummary, Measurements, percentile
from bench.resplits import ResplitSettings, beta_binomial_over, resplit
from bench.roc import auroc, detection_rate

SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=30)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_scipys_exact_one(counts: tuple[int, int]) -> None:
    events, n = counts
    exact = stats.binomtest(events, n).proportion_ci(0.95, method="exact")
    assert interval(events, n) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_without_rows_nothing_is_known() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert MeasuredShare("nothing", 0, 0, 0.1).verdict is PromiseVerdict.NONE


@pytest.mark.parametrize(
    ("events", "promised", "verdict"),
    [
        (10, 0.02, PromiseVerdict.HOLDS),
        (18, 0.02, PromiseVerdict.CONSISTENT),
        (25, 0.02, PromiseVerdict.CONSISTENT),
        (40, 0.02, PromiseVerdict.BROKEN),
        (40, None, PromiseVerdict.NONE),
    ],
)
def test_a_verdict_follows_from_the_interval(
    events: int, promised: float | None, verdict: PromiseVerdict
) -> None:
    assert MeasuredShare("stopped", events, 1000, promised).verdict is verdict


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order_ties_half(clean: list[float], outliers: list[float]) -> None:
    pairs = [(a < b) + (a == b) / 2 for a in clean for b in outliers]
    assert auroc(np.array(clean), np.array(outliers)) == pytest.approx(sum(pairs) / len(pairs))


@given(SCORES, st.floats(0, 0.5))
def test_a_threshold_keeps_its_false_alarms_even_with_ties(clean: list[float], share: float) -> None:
    scores = np.array(clean)
    assert detection_rate(scores, scores, share) <= share
    assert detection_rate(scores, np.array([math.inf]), share) == 1


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_percentiles_are_numpys_inverted_cdf(values: list[float], share: float) -> None:
    ascending = np.sort(values)
    assert percentile(ascending, share) == np.quantile(ascending, share, method="inverted_cdf")


def test_a_spread_is_in_milliseconds_and_empty_without_latencies() -> None:
    spread = LatencySummary.of(array("d", [i / 1000 for i in range(1, 1001)]))
    assert (spread.n, spread.p50, spread.p90, spread.p99) == (1000, 500, 900, 990)
    assert (spread.p99_9, spread.max) == (999, 1000)
    assert spread.mean == pytest.approx(500.5)
    assert LatencySummary.of(Measurements().all_s()).n == 0


@given(st.integers(1, 60), st.floats(0.5, 20), st.floats(0.5, 50), st.data())
def test_the_beta_binomial_is_scipys(m: int, a: float, b: float, data: st.DataObject) -> None:
    x = data.draw(st.integers(0, m))
    assert beta_binomial_over(x, m, a, b) == pytest.approx(stats.betabinom(m, a, b).sf(x), abs=1e-9)


def test_over_same_population_splits_the_excess_is_the_exact_one() -> None:
    pool = np.random.default_rng(0).standard_exponential(1000)
    found = resplit("same", pool, None, ResplitSettings(0.05, 0.05, 2000, 0))
    assert (found.n, found.m) == (500, 500)
    assert found.mean == pytest.approx(found.expected_mean, abs=0.001)
    assert found.exceed == pytest.approx(found.expected_exceed, abs=0.02)
    assert found.true_exceed <= 0.05 < found.expected_exceed


def test_another_population_shows_in_the_mean() -> None:
    rng = np.random.default_rng(1)
    pool, harder = rng.standard_exponential(1000), 1.5 * rng.standard_exponential(1000)
    found = resplit("fresh", pool, harder, ResplitSettings(0.05, 0.05, 50, 0))
    assert found.mean > 2 * found.expected_mean
    assert found.exceed > 0.9
