"""Evidence on sequences: honest streams seldom alarm, searches soon do, also after a long honest past."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.near_pairs import EXACT, NEAR, NOTHING, Matches
from guards.rows import F8
from guards.selective import clopper_pearson_upper
from guards.sequence import MOST_WEALTH, Bets, Evidence, hits, pooled

RATES, HITS = st.floats(0.001, 0.5), st.lists(st.booleans(), max_size=60)


def highest(bets: Bets, streams: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> F8:
    """The highest e-value of each stream of [n, rows]: `Bets.after` for n streams at once."""
    n, factors = len(streams), np.array([bets.at_miss, bets.at_hit]).T
    reserve, wealth, most = 1.0, np.zeros((n, len(factors))), np.ones(n)
    for t, now in enumerate(streams.T):
        kept = reserve * math.log(t + 2) / math.log(t + 3)
        wealth = (wealth + (reserve - kept) / len(factors)) * factors[:, now.astype(int)].T
        reserve = kept
        most = np.maximum(most, reserve + wealth.sum(1))
    return most


@pytest.mark.parametrize(("rate", "alpha"), [(0.02, 0.01), (0.02, 0.1), (0.1, 0.05), (0.3, 0.1)])
def test_honest_streams_alarm_with_at_most_the_stated_chance(rate: float, alpha: float) -> None:
    """4,000 streams of 2,000 rows; the stated chance is one of the whole life of a principal."""
    streams = np.random.default_rng(1).random((4000, 2000)) < rate
    alarms = int((highest(Bets(rate, alpha), streams) >= 1 / alpha).sum())
    assert 1 - clopper_pearson_upper(4000 - alarms, 4000, 1e-4) <= alpha


def test_hits_that_come_in_bursts_but_never_too_often_alarm_no_more() -> None:
    """The chance given the past moves, as a memory fills, and stays below the honest rate."""
    rng = np.random.default_rng(2)
    chance = 0.05 * np.abs(np.sin(np.arange(1500) / 100))
    streams = rng.random((4000, 1500)) < chance
    alarms = int((highest(Bets(0.05, 0.05), streams) >= 20).sum())
    assert 1 - clopper_pearson_upper(4000 - alarms, 4000, 1e-4) <= 0.05


def test_many_streams_at_once_equal_one_by_one() -> None:
    bets, streams = Bets(0.05, 0.01), np.random.default_rng(3).random((5, 80)) < 0.2
    for stream, most in zip(streams, highest(bets, streams), strict=True):
        evidence, seen = bets.new(), [1.0]
        for hit in stream.tolist():
            evidence = bets.after(evidence, [hit])
            seen.append(evidence.value)
        assert max(seen) == pytest.approx(most, rel=1e-9)


@given(RATES, HITS)
def test_one_more_row_has_a_mean_of_at_most_the_value_before(rate: float, past: list[bool]) -> None:
    bets = Bets(rate, 0.01)
    before = bets.after(bets.new(), past)
    hit, miss = bets.after(before, [True]).value, bets.after(before, [False]).value
    assert rate * hit + (1 - rate) * miss <= before.value * (1 + 1e-9)
    assert 0 <= miss <= before.value * (1 + 1e-12) <= hit * (1 + 1e-9) or before.value > MOST_WEALTH / 10


@given(RATES, HITS, HITS)
def test_rows_together_equal_rows_one_after_the_other(rate: float, one: list[bool], two: list[bool]) -> None:
    bets = Bets(rate, 0.01)
    assert bets.after(bets.after(bets.new(), one), two) == bets.after(bets.new(), one + two)


@pytest.mark.parametrize("past", [0, 1000, 200_000])
@pytest.mark.parametrize(("share", "most"), [(0.9, 15), (0.5, 40)])
def test_a_search_alarms_soon_also_after_a_long_honest_past(past: int, share: float, most: int) -> None:
    bets, rng = Bets(0.02, 1e-3), np.random.default_rng(4)
    evidence = bets.after(bets.new(), (rng.random(past) < 0.01).tolist())
    assert not bets.alarms(evidence)
    needed = []
    for _ in range(20):
        found, rows = evidence, 0
        while not bets.alarms(found):
            found, rows = bets.after(found, [bool(rng.random() < share)]), rows + 1
        needed.append(rows)
    assert np.median(needed) <= most


def test_wealth_is_bounded_and_an_alarm_ends_when_hits_do() -> None:
    bets = Bets(0.02, 1e-3)
    evidence = bets.after(bets.new(), [True] * 5000)
    assert evidence.value <= 4 * MOST_WEALTH + 1 and bets.alarms(evidence)
    assert not bets.alarms(bets.after(evidence, [False] * 2000))


def test_the_reserve_is_spent_as_stated() -> None:
    evidence = Bets(0.02, 0.01).after(Bets(0.02, 0.01).new(), [False] * 1000)
    assert evidence.reserve == pytest.approx(1 / math.log2(1003 - 1), rel=1e-9)


def test_pooled_evidence_is_the_mean_and_multiplies_from_then_on() -> None:
    bets = Bets(0.02, 0.01)
    thief, other = bets.after(bets.new(), [True] * 3), bets.after(bets.new(), [False] * 5)
    both = pooled(thief, other)
    assert both.value == pytest.approx((thief.value + other.value) / 2)
    assert both.deposits == 2 and both.rows == 5
    assert bets.after(both, [True]).value > 10 * both.value


def matches(kinds: list[int]) -> Matches:
    n, none = len(kinds), np.full(len(kinds), -1)
    return Matches(np.array(kinds, np.uint8), none, np.zeros(n, np.int64), none, none)


def test_a_hit_is_near_to_a_query_of_a_small_or_unknown_margin() -> None:
    found = matches([NEAR, NEAR, NEAR, EXACT, NOTHING])
    earlier = np.array([0.1, 0.9, np.nan, 0.1, np.nan], np.float32)
    assert hits(found, earlier, 0.2).tolist() == [True, False, True, False, False]
    assert hits(found, earlier, math.inf).tolist() == [True, True, True, False, False]
    assert hits(matches([]), earlier[:0], 0.2).tolist() == []


def test_rates_and_levels_outside_their_range_are_refused() -> None:
    for rate, alpha in ((0.0, 0.1), (0.6, 0.1), (0.1, 0.0), (0.1, 1.0), (math.nan, 0.1)):
        with pytest.raises(ValueError, match="sequence:"):
            Bets(rate, alpha)
    assert Bets(0.5, 0.1).new() == Evidence(0, 1.0, (0.0, 0.0), 1)
