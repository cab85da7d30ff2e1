"""The certified acceptance: Clopper-Pearson as in scipy, the fixed sequence, ties, the promise simulated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom

from guards.rows import F8
from guards.selective import accepted_needed, certified_acceptance, clopper_pearson_upper

DRAWS = 300


@given(st.integers(0, 300), st.integers(1, 3000), st.floats(0.001, 0.5))
def test_clopper_pearson_equals_the_beta_quantile(errors: int, n: int, delta: float) -> None:
    errors = min(errors, n)
    expected = 1.0 if errors == n else beta.ppf(1 - delta, errors + 1, n - errors)
    assert clopper_pearson_upper(errors, n, delta) == pytest.approx(expected, abs=1e-10)


def test_clopper_pearson_of_nothing_is_one() -> None:
    assert clopper_pearson_upper(0, 0, 0.05) == 1.0


def test_accepted_samples_needed_as_on_the_guards_page() -> None:
    assert [accepted_needed(errors, 0.01, 0.05) for errors in (0, 1, 5)] == [299, 473, 1049]


def test_accepts_all_if_nothing_is_wrong_and_says_so() -> None:
    suspicion = np.random.default_rng(0).uniform(size=1000)
    found = certified_acceptance(suspicion, np.zeros(1000, bool), 0.02, 0.05)
    assert (found.accepted, found.errors, found.n, found.coverage) == (1000, 0, 1000, 1.0)
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert (found.r, found.delta) == (0.02, 0.05)
    assert (suspicion < found.cut).all()


def test_stops_before_the_rows_that_are_wrong() -> None:
    suspicion = np.arange(1000.0)
    wrong = suspicion >= 700
    found = certified_acceptance(suspicion, wrong, 0.02, 0.05)
    assert found.coverage == 0.7
    assert found.cut == 700.0
    assert found.bound <= 0.02


def test_reports_what_lies_strictly_below_the_cut() -> None:
    rng = np.random.default_rng(3)
    suspicion = rng.uniform(size=2000)
    wrong = rng.uniform(size=2000) < 0.1 * suspicion**2
    found = certified_acceptance(suspicion, wrong, 0.03, 0.1)
    below = suspicion < found.cut
    assert found.accepted == below.sum()
    assert found.errors == wrong[below].sum()
    assert found.coverage == below.mean()
    assert found.bound == clopper_pearson_upper(found.errors, found.accepted, 0.1) <= 0.03


def test_does_not_jump_over_a_failure_to_a_looser_cut_that_would_pass() -> None:
    suspicion = np.arange(1000.0)
    wrong = (suspicion >= 400) & (suspicion < 430)  # a bad patch, diluted to 3 % of all
    assert clopper_pearson_upper(30, 1000, 0.05) < 0.05 < clopper_pearson_upper(30, 440, 0.05)
    found = certified_acceptance(suspicion, wrong, 0.05, 0.05)
    assert found.accepted < 440


def test_begins_where_two_errors_are_affordable_so_that_one_unlucky_row_does_not_end_it() -> None:
    suspicion = np.arange(1000.0)
    wrong = suspicion == 0
    assert accepted_needed(0, 0.02, 0.05) < accepted_needed(1, 0.02, 0.05)
    assert certified_acceptance(suspicion, wrong, 0.02, 0.05).accepted == 1000


def test_begins_where_a_certificate_is_possible_at_all_if_there_is_no_room_for_two() -> None:
    n = accepted_needed(0, 0.02, 0.05)
    found = certified_acceptance(np.arange(float(n)), np.zeros(n, bool), 0.02, 0.05)
    assert found.accepted == n


def test_what_cannot_be_certified_says_how_near_it_came_and_what_would_do() -> None:
    n = accepted_needed(0, 0.02, 0.05)
    with pytest.raises(
        ValueError, match=rf"148 rows cannot certify an error of 0\.02 .*0\.02.*; {n} accepted"
    ):
        certified_acceptance(np.arange(148.0), np.zeros(148, bool), 0.02, 0.05)
    wrong = np.arange(1000) % 2 == 0
    best = clopper_pearson_upper(500, 1000, 0.05)
    with pytest.raises(ValueError, match=rf"the best bound is {best:.3g}"):
        certified_acceptance(np.arange(1000.0), wrong, 0.02, 0.05)


def test_tied_rows_are_accepted_together_or_not_at_all() -> None:
    suspicion = np.concatenate([np.zeros(500), np.full(300, 0.5), np.ones(200)])
    wrong = suspicion == 1
    found = certified_acceptance(suspicion, wrong, 0.02, 0.05)
    assert found.accepted == 800
    assert 0.5 < found.cut <= 1.0
    wrong[500:520] = True  # 20 of the 300 in the middle
    found = certified_acceptance(suspicion, wrong, 0.02, 0.05)
    assert found.accepted == 500
    assert 0.0 < found.cut <= 0.5


def test_if_all_rows_tie_it_is_all_or_nothing() -> None:
    found = certified_acceptance(np.zeros(400), np.zeros(400, bool), 0.02, 0.05)
    assert found.accepted == 400
    assert found.cut > 0
    with pytest.raises(ValueError, match="cannot certify"):
        certified_acceptance(np.zeros(400), np.arange(400) < 40, 0.02, 0.05)


def test_the_candidate_coverages_may_be_given() -> None:
    suspicion = np.arange(1000.0)
    found = certified_acceptance(suspicion, suspicion >= 700, 0.02, 0.05, coverages=(0.65, 0.3, 0.9))
    assert found.accepted == 650
    with pytest.raises(ValueError, match="the best bound is 1"):
        certified_acceptance(np.zeros(400), np.zeros(400, bool), 0.02, 0.05, coverages=(0.5,))


def too_many(delta: float) -> int:
    return int(binom.isf(1e-4, DRAWS, delta))


def naive_cut(suspicion: F8, wrong: NDArray[np.bool_], r: float) -> float:
    """The loosest cut whose plain error rate is at most r: what one would do without a bound."""
    order = np.argsort(suspicion)
    rate = np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    return float(suspicion[order][np.flatnonzero(rate <= r)[-1]])


def test_the_promise_is_kept_and_the_plain_error_rate_would_break_it() -> None:
    rng = np.random.default_rng(0)
    broken = broken_by_naive = 0
    coverages = []
    for _ in range(DRAWS):
        suspicion = rng.uniform(size=1000)  # P(wrong | s) = 0.3 s^2, so the error below a cut c is 0.1 c^2
        wrong = rng.uniform(size=1000) < 0.3 * suspicion**2
        found = certified_acceptance(suspicion, wrong, 0.04, 0.1)
        broken += 0.1 * found.cut**2 > 0.04
        broken_by_naive += 0.1 * naive_cut(suspicion, wrong, 0.04) ** 2 > 0.04
        coverages.append(found.coverage)
    assert broken <= too_many(0.1) < broken_by_naive
    assert np.mean(coverages) > 0.4, "the best possible is 0.63"


@pytest.mark.parametrize("at", [0.3, 0.9])
def test_the_promise_is_kept_where_the_error_of_everything_is_just_over_r(at: float) -> None:
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(DRAWS):  # only the cut that accepts the second level is bad, and only just
        suspicion = np.where(rng.uniform(size=600) < at, 0.0, 1.0)
        wrong = rng.uniform(size=600) < np.where(suspicion == 1, 0.0505 / (1 - at), 0.0)
        try:
            broken += certified_acceptance(suspicion, wrong, 0.05, 0.1).cut > 1
        except ValueError:
            continue
    assert 0 < broken <= too_many(0.1)


@pytest.mark.parametrize(
    ("suspicion", "wrong", "message"),
    [
        (np.zeros(3), np.zeros(2, bool), "expected float64"),
        (np.zeros(3), np.zeros(3), "wrong is float64"),
        (np.zeros((3, 1)), np.zeros((3, 1), bool), "expected float64"),
        (np.zeros(0), np.zeros(0, bool), "n >= 1"),
        (np.array([0.0, np.nan]), np.zeros(2, bool), "NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(suspicion: F8, wrong: NDArray[np.bool_], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certified_acceptance(suspicion, wrong, 0.05, 0.05)


@pytest.mark.parametrize(("r", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_rates_outside_zero_to_one_are_refused(r: float, delta: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        certified_acceptance(np.zeros(3), np.zeros(3, bool), r, delta)
