"""The chance that a later test passes: scipy's beta-binomial, and draws of both folds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from guards.chance import beta_binomial_cdf, chance_to_pass
from guards.selective import Counts


@given(st.integers(-1, 600), st.integers(0, 600), st.floats(0.5, 900), st.floats(0.5, 900))
def test_it_is_the_distribution_function_of_scipy(i: int, n: int, a: float, b: float) -> None:
    i = min(i, n)
    assert beta_binomial_cdf(i, n, a, b) == pytest.approx(betabinom.cdf(i, n, a, b), abs=1e-9)


def test_it_is_the_share_of_drawn_folds_that_pass() -> None:
    rng = np.random.default_rng(0)
    draws, n, tests, errors, r, delta = 4_000, 200, 150, 9, 0.1, 0.1
    rates = np.sort(rng.uniform(size=(draws, n)), axis=1)[:, errors]  # beyond the order statistic
    wrong = rng.binomial(tests, rates)
    passed = np.mean([Counts(tests, int(w)).certifies(r, delta) for w in wrong])
    assert chance_to_pass(errors, n, tests, r, delta) == pytest.approx(passed, abs=0.03)


def test_more_errors_never_raise_it_and_too_few_test_rows_leave_none() -> None:
    chances = [chance_to_pass(errors, 300, 200, 0.1, 0.05) for errors in range(60)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.99 > 0.01 > chances[-1]
    assert chance_to_pass(0, 300, 10, 0.1, 0.05) == 0.0
