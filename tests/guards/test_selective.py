"""The certified cuts: Clopper-Pearson as in scipy, the sequence, its start, ties, the promise simulated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom

from guards.rows import F8
from guards.selective import (
    CertifiedCuts,
    Counts,
    Labelled,
    accepted_needed,
    candidate_cuts,
    certified_cuts,
    clopper_pearson_upper,
    most_errors,
    passing,
)

DRAWS = 300
Draw = Callable[[np.random.Generator, int], tuple[F8, NDArray[np.bool_]]]


@given(st.integers(0, 300), st.integers(1, 3000), st.floats(0.001, 0.5))
def test_clopper_pearson_equals_the_beta_quantile(errors: int, n: int, delta: float) -> None:
    errors = min(errors, n)
    expected = 1.0 if errors == n else beta.ppf(1 - delta, errors + 1, n - errors)
    assert clopper_pearson_upper(errors, n, delta) == pytest.approx(expected, abs=1e-10)


def test_clopper_pearson_of_nothing_is_one() -> None:
    assert clopper_pearson_upper(0, 0, 0.05) == 1.0


@given(st.integers(1, 3000), st.floats(0.005, 0.5), st.floats(0.001, 0.5))
def test_so_many_errors_are_certified_and_one_more_is_not(accepted: int, r: float, delta: float) -> None:
    most = most_errors(accepted, r, delta)
    assert most == -1 or binom.cdf(most, accepted, r) <= delta * (1 + 1e-9)
    assert binom.cdf(most + 1, accepted, r) > delta * (1 - 1e-9)


def test_no_accepted_row_certifies_nothing() -> None:
    assert not Counts(0, 0).certifies(0.5, 0.5)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="2 errors among 1"):
        Counts(1, 2)


def test_accepted_samples_needed_as_on_the_guards_page() -> None:
    assert [accepted_needed(errors, 0.01, 0.05) for errors in (0, 1, 5)] == [299, 473, 1049]


def test_a_sequence_ends_at_the_first_failure_although_a_later_cut_would_pass() -> None:
    accepted, errors = np.array([1000, 1000, 3000]), np.array([0, 400, 0])
    assert passing(accepted, errors, 0.05, 0.05) == 1
    assert passing(accepted, errors * 0, 0.05, 0.05) == 3


def test_candidates_lie_between_atoms_ascend_and_reach_all_rows() -> None:
    suspicion = np.repeat([0.0, 0.25, 0.5], [50, 30, 20])
    cuts = candidate_cuts(suspicion)
    assert [int((suspicion < cut).sum()) for cut in cuts] == [50, 80, 100]
    noisy = suspicion + np.random.default_rng(0).uniform(-1e-7, 1e-7, 100)
    assert [int((noisy < cut).sum()) for cut in cuts] == [50, 80, 100]


def rising(rng: np.random.Generator, n: int) -> tuple[F8, NDArray[np.bool_]]:
    """P(wrong | s) = 0.3 s^2, so the error below a cut c is 0.1 c^2."""
    suspicion = rng.uniform(size=n)
    return suspicion, rng.uniform(size=n) < 0.3 * suspicion**2


def flat(rate: float) -> Draw:
    """The suspicion says nothing."""
    return lambda rng, n: (rng.uniform(size=n), rng.uniform(size=n) < rate)


def surest_wrong(rng: np.random.Generator, n: int) -> tuple[F8, NDArray[np.bool_]]:
    """The error peaks among the surest rows: confident mistakes. Below a cut c >= 0.05 it is 0.025 / c."""
    suspicion = rng.uniform(size=n)
    return suspicion, (suspicion < 0.05) & (rng.uniform(size=n) < 0.5)


def certify(draw: Draw, seed: int, pilot: int, test: int, r: float, delta: float) -> CertifiedCuts:
    rng = np.random.default_rng(seed)
    return certified_cuts(Labelled(*draw(rng, pilot)), Labelled(*draw(rng, test)), r, delta)


def true_error(draw: Draw, cut: float) -> float:
    suspicion, wrong = draw(np.random.default_rng(10**6), 400_000)
    return float(wrong[suspicion < cut].mean()) if (suspicion < cut).any() else 0.0


def too_many(draws: int, share: float) -> int:
    """More than this happens by chance once in ten thousand runs."""
    return int(binom.isf(1e-4, draws, share))


@pytest.mark.parametrize(
    ("draw", "r"), [(rising, 0.04), (flat(0.1), 0.099), (surest_wrong, 0.05), (flat(0.05), 0.06)]
)
def test_every_cut_that_passes_keeps_the_promise_in_all_but_delta_of_the_draws(draw: Draw, r: float) -> None:
    delta, broken = 0.1, 0
    errors = {cut: true_error(draw, cut) for cut in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
    for seed in range(DRAWS):
        found = certify(draw, seed, 1500, 800, r, delta)
        reached = {at for at in errors if any(abs(cut - at) < 0.01 for cut in found.certified)}
        broken += any(errors[at] > r * 1.02 for at in reached)
    assert broken <= too_many(DRAWS, delta)


def test_the_count_of_broken_promises_would_find_a_plain_error_rate() -> None:
    """The control of the test above: the loosest cut whose plain error rate is at most r breaks it."""
    broken = 0
    for seed in range(DRAWS):
        suspicion, wrong = rising(np.random.default_rng(seed), 800)
        order = np.argsort(suspicion)
        rate = np.cumsum(wrong[order]) / np.arange(1, 801)
        broken += 0.1 * float(suspicion[order][np.flatnonzero(rate <= 0.04)[-1]]) ** 2 > 0.04
    assert broken > too_many(DRAWS, 0.1)


@pytest.mark.parametrize(
    ("draw", "r", "test"),
    [(flat(0.1), 0.25, 350), (flat(0.2), 0.25, 1000), (flat(0.02), 0.05, 1000), (surest_wrong, 0.05, 1000)],
)
def test_a_promise_with_room_is_not_refused_by_chance(draw: Draw, r: float, test: int) -> None:
    refused = sum(not certify(draw, seed, 2 * test, test, r, 0.05).certified for seed in range(DRAWS))
    assert refused <= too_many(DRAWS, 0.02)


def test_it_accepts_nearly_all_that_could_be_accepted() -> None:
    found = [certify(rising, seed, 4000, 2000, 0.04, 0.1).certified for seed in range(50)]
    assert np.mean([cuts[-1] if cuts else 0.0 for cuts in found]) > 0.5, "the best possible is 0.63"


def test_if_nothing_is_wrong_everything_is_accepted() -> None:
    found = certify(flat(0.0), 0, 1000, 1000, 0.02, 0.05)
    assert found.certified[-1] == found.tried[-1] >= 0.999


def test_what_cannot_be_certified_says_how_the_surest_cut_did() -> None:
    found = certify(flat(0.5), 0, 1000, 1000, 0.02, 0.05)
    assert found.certified == ()
    assert found.surest.accepted > 0
    assert not found.surest.certifies(0.02, 0.05)


def test_the_test_rows_decide_what_passes_and_not_what_is_tried() -> None:
    """Otherwise a hypothesis would depend on the rows that test it."""
    pilot = Labelled(*rising(np.random.default_rng(0), 1000))
    good = certified_cuts(pilot, Labelled(*rising(np.random.default_rng(1), 1000)), 0.04, 0.1)
    bad = certified_cuts(pilot, Labelled(*flat(0.5)(np.random.default_rng(2), 1000)), 0.04, 0.1)
    assert good.tried == bad.tried
    assert good.certified and not bad.certified


def test_without_pilot_rows_nothing_is_certified() -> None:
    none = Labelled(np.empty(0), np.empty(0, bool))
    assert certified_cuts(none, Labelled(np.zeros(9), np.zeros(9, bool)), 0.5, 0.5).certified == ()


@pytest.mark.parametrize(
    ("suspicion", "wrong", "message"),
    [
        (np.zeros(3), np.zeros(2, bool), "not bool, one a row"),
        (np.zeros(3), np.zeros(3), "wrong is float64"),
        (np.zeros((3, 1)), np.zeros((3, 1), bool), "one finite number a row"),
        (np.array([0.0, np.nan]), np.zeros(2, bool), "one finite number a row"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(suspicion: F8, wrong: NDArray[np.bool_], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labelled(suspicion, wrong)


@pytest.mark.parametrize(("r", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_rates_outside_zero_to_one_are_refused(r: float, delta: float) -> None:
    rows = Labelled(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        certified_cuts(rows, rows, r, delta)
