"""The binomial distribution function against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from guards.binomial import cdf, log_masses


@pytest.mark.parametrize("n", [1, 2, 17, 500, 10_000])
@pytest.mark.parametrize("p", [1e-6, 0.001, 0.02, 0.5, 0.93])
def test_equals_scipy(n: int, p: float) -> None:
    for i in {0, 1, n // 50, round(n * p), int(n * p + 2 * (n * p * (1 - p)) ** 0.5), n - 1}:
        assert cdf(i, n, p) == pytest.approx(binom.cdf(i, n, p), abs=1e-10)


def test_equals_scipy_for_a_million() -> None:
    for i in (20_000, 20_300):
        assert cdf(i, 1_000_000, 0.02) == pytest.approx(binom.cdf(i, 1_000_000, 0.02), abs=1e-10)


def test_small_tails_keep_their_relative_precision() -> None:
    assert cdf(2, 5000, 0.02) == pytest.approx(binom.cdf(2, 5000, 0.02), rel=1e-8)
    assert cdf(2, 5000, 0.02) < 1e-40


def test_log_masses_equal_scipy() -> None:
    np.testing.assert_allclose(log_masses(300, 0.3), binom.logpmf(np.arange(301), 300, 0.3), rtol=1e-10)


def test_the_edges() -> None:
    assert cdf(-1, 5, 0.5) == 0
    assert cdf(5, 5, 0.5) == 1
    assert cdf(0, 5, 0.0) == 1
    assert cdf(4, 5, 1.0) == 0
