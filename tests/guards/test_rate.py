"""GCRA on a fake clock: exact bursts, exact waits, nothing charged for a refusal, bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.rate import RateGuard, conform_row


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def charge_at(guard: RateGuard, principal: str, rows: int, now: float) -> list[float]:
    assert isinstance(guard.clock, Clock)
    guard.clock.now = now
    return guard.charge(principal, rows)


def passes(guard: RateGuard, principal: str, rows: int, now: float) -> int:
    return sum(score < 1.0 for score in charge_at(guard, principal, rows, now))


@given(st.integers(1, 200), st.floats(0.01, 1000), st.floats(0, 1e6), st.integers(1, 30), st.floats(0, 0.999))
def test_exactly_burst_rows_pass_at_one_instant_and_one_more_each_period(
    burst: int, per_s: float, start: float, later: int, part: float
) -> None:
    guard = RateGuard(per_s, burst, Clock())
    assert passes(guard, "a", burst + 5, start) == burst
    elapsed = (min(later, burst) + 0.99 * part) / per_s + 1e-9
    assert passes(guard, "a", burst + 5, start + elapsed) == min(later, burst)


def test_refill_at_the_rate_and_a_full_burst_after_burst_periods() -> None:
    guard = RateGuard(10, 3, Clock())
    assert passes(guard, "a", 5, 0.0) == 3
    assert passes(guard, "a", 1, 0.05) == 0
    assert passes(guard, "a", 1, 0.1) == 1
    assert passes(guard, "a", 1, 0.1) == 0
    assert passes(guard, "a", 9, 0.4) == 3
    assert passes(guard, "a", 9, 99.0) == 3


def test_the_scores_of_a_burst_rise_evenly_to_just_below_one() -> None:
    scores = charge_at(RateGuard(10, 4, Clock()), "a", 6, 5.0)
    np.testing.assert_allclose(scores, [0.25, 0.5, 0.75, 1.0, 1.25, 1.25])
    assert 1 - 1e-12 < scores[3] < 1 < scores[4]


@given(st.integers(1, 50), st.floats(0.1, 100), st.floats(0, 1e5), st.floats(0, 3))
def test_a_refused_row_passes_after_exactly_the_wait_its_score_tells(
    burst: int, per_s: float, start: float, late: float
) -> None:
    guard = RateGuard(per_s, burst, Clock())
    charge_at(guard, "a", burst, start)
    now = start + late / per_s
    score = charge_at(guard, "a", 1, now)[0]
    wait_s = (score - 1) * burst / per_s
    if score >= 1.0:
        assert wait_s == pytest.approx(1 / per_s - (now - start), abs=2e-3 / per_s)
        assert charge_at(guard, "a", 1, now + 0.99 * wait_s - 2e-3 / per_s)[0] >= 1.0
        assert charge_at(guard, "a", 1, now + wait_s)[0] < 1.0
    else:
        assert late >= 0.998


def test_a_refused_row_is_not_charged() -> None:
    patient, hammering = RateGuard(1, 2, Clock()), RateGuard(1, 2, Clock())
    charge_at(patient, "a", 2, 0.0)
    charge_at(hammering, "a", 2, 0.0)
    for i in range(1, 1000):
        assert charge_at(hammering, "a", 1, i / 1001)[0] >= 1.0
    assert charge_at(hammering, "a", 1, 1.0)[0] == charge_at(patient, "a", 1, 1.0)[0] < 1.0


def test_one_step_by_hand() -> None:
    assert conform_row(0.0, 10.0, 2.0, 4.0) == (12.0, 0.5)
    assert conform_row(12.0, 10.0, 2.0, 4.0) == (14.0, np.nextafter(1, 0))
    assert conform_row(13.0, 10.0, 2.0, 4.0) == (13.0, 1.25)


def test_principals_do_not_share_and_the_order_of_rows_counts() -> None:
    guard = RateGuard(1, 2, Clock())
    scores = [charge_at(guard, who, 1, 0.0)[0] for who in ("a", "b", "a", "a", "b")]
    assert [score < 1.0 for score in scores] == [True, True, True, False, True]


def test_n_rows_at_once_equal_n_rows_alone() -> None:
    whole, single = RateGuard(1, 2, Clock()), RateGuard(1, 2, Clock())
    for rows in (1, 3, 2):
        assert charge_at(whole, "a", rows, 0.0) == [charge_at(single, "a", 1, 0.0)[0] for _ in range(rows)]


def test_an_override_scales_rate_and_burst() -> None:
    rates = {"double": 20.0, "half": 5.0, "crawl": 0.1, "none": 0.0, "free": math.inf}
    guard = RateGuard(10, 4, Clock(), rates.get)
    taken = {who: passes(guard, who, 50, 0.0) for who in ("usual", *rates)}
    assert taken == {"usual": 4, "double": 8, "half": 2, "crawl": 1, "none": 0, "free": 50}
    again = {who: passes(guard, who, 50, 0.2) for who in ("usual", *rates)}
    assert again == {"usual": 2, "double": 4, "half": 1, "crawl": 0, "none": 0, "free": 50}


def test_the_wait_is_in_the_same_unit_for_every_override() -> None:
    guard = RateGuard(10, 4, Clock(), {"crawl": 0.1, "none": 0.0}.get)
    charge_at(guard, "crawl", 1, 0.0)
    assert (charge_at(guard, "crawl", 1, 3.0)[0] - 1) * 4 / 10 == pytest.approx(7.0)
    assert charge_at(guard, "none", 1, 0.0)[0] == math.inf


def test_a_rate_that_is_no_rate_is_an_error_not_a_pass() -> None:
    for rate in (-1.0, math.nan):
        with pytest.raises(ValueError, match="rate: the rate of 'a' is"):
            charge_at(RateGuard(1, 1, Clock(), {"a": rate}.get), "a", 1, 0.0)
    for per_s, burst in ((0.0, 1), (1.0, 0.5), (math.nan, 1), (math.inf, 1), (1.0, math.inf)):
        with pytest.raises(ValueError, match="rate: per_s is"):
            RateGuard(per_s, burst, Clock())


def test_expired_principals_are_forgotten_a_few_at_a_time() -> None:
    guard = RateGuard(10, 10, Clock())
    most = 0
    for i in range(20_000):
        charge_at(guard, f"key {i}", 1, i / 100)  # each bucket is busy for 0.1 s: 10 are live at any time
        most = max(most, len(guard.arrival_times))
    assert most <= 40
    live = {who for who, tat in guard.arrival_times.items() if tat > 199.99}
    assert {f"key {i}" for i in range(19_991, 20_000)} <= live


def test_a_flood_of_keys_is_forgotten_by_the_traffic_that_follows() -> None:
    guard = RateGuard(10, 10, Clock())
    for i in range(5000):
        charge_at(guard, f"key {i}", 1, 0.0)
    assert len(guard.arrival_times) == 5000
    charge_at(guard, "one", 5, 10.0)
    charge_at(guard, "one", 2600, 10.0)
    assert set(guard.arrival_times) == {"one"}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 0.5)), max_size=80))
def test_forgetting_never_changes_a_score(arrival_times: list[tuple[str, float]]) -> None:
    guard, now = RateGuard(3, 4, Clock()), 0.0
    remembered: dict[str, float] = {}
    for who, gap in arrival_times:
        now += gap
        remembered[who], expected = conform_row(remembered.get(who, 0.0), now, 1 / 3, 4 / 3)
        assert charge_at(guard, who, 1, now)[0] == expected


def test_a_clock_that_steps_back_gives_no_credit() -> None:
    guard = RateGuard(1, 2, Clock())
    charge_at(guard, "a", 2, 100.0)
    assert charge_at(guard, "a", 1, 50.0)[0] >= 1.0


def test_the_guard_reads_principals_and_its_clock() -> None:
    clock = Clock()
    guard = RateGuard(1, 1, clock)
    assert [guard.charge(who, 1)[0] >= 1.0 for who in ("a", "a", "b")] == [False, True, False]
    clock.now += 1
    assert [guard.charge(who, 1)[0] >= 1.0 for who in ("a", "a", "b")] == [False, True, False]
