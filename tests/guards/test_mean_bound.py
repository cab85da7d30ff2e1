"""The bound of a mean loss: the capital by hand, validity by simulation, and against Hoeffding-Bentkus."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq
from scipy.stats import binom

from guards.mean_bound import certifies_mean, upper_mean_bound
from guards.rows import F8
from guards.selective import clopper_pearson_upper

DRAWS = 1_500
Draw = Callable[[np.random.Generator, int], F8]
LOSSES = hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(0, 1, width=32))


def bernoulli(p: float) -> Draw:
    return lambda rng, n: (rng.uniform(size=n) < p).astype(np.float64)


def beta(a: float, b: float) -> Draw:
    return lambda rng, n: rng.beta(a, b, n)


def atoms(rng: np.random.Generator, n: int) -> F8:
    """Mostly 0, a tenth uniform, two in a hundred 1."""
    kind = rng.uniform(size=n)
    return np.where(kind < 0.02, 1.0, np.where(kind < 0.12, rng.uniform(size=n), 0.0))


def constant(rng: np.random.Generator, n: int) -> F8:
    return np.full(n, 0.3)


FAMILIES: dict[str, tuple[Draw, float]] = {
    "rare ones": (bernoulli(0.03), 0.03),
    "fair coin": (bernoulli(0.5), 0.5),
    "mostly one": (bernoulli(0.9), 0.9),
    "skewed to zero": (beta(0.3, 3.0), 0.3 / 3.3),
    "skewed to one": (beta(3.0, 0.3), 3.0 / 3.3),
    "uniform": (beta(1.0, 1.0), 0.5),
    "narrow": (beta(40.0, 360.0), 0.1),
    "atoms at both ends": (atoms, 0.07),
    "constant": (constant, 0.3),
}


def hoeffding_bentkus(losses: F8, delta: float) -> float:
    """Bates et al. 2021, proposition 7: the least mean whose p-value is at most delta."""
    n, found = len(losses), float(losses.mean())

    def log_p(mean: float) -> float:
        a = min(found, mean)
        zero = a * math.log(a / mean) if a > 0 else 0.0
        one = (1 - a) * math.log((1 - a) / (1 - mean)) if a < 1 else 0.0
        bentkus = 1 + float(binom.logcdf(math.ceil(n * found - 1e-9), n, mean))
        return min(-n * (zero + one), bentkus) - math.log(delta)

    if log_p(1 - 1e-12) > 0:
        return 1.0
    return float(brentq(log_p, max(found, 1e-12), 1 - 1e-12))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("n", "delta"), [(20, 0.1), (300, 0.05)])
def test_the_true_mean_is_above_the_bound_in_at_most_delta_of_the_draws(
    name: str, n: int, delta: float
) -> None:
    draw, mean = FAMILIES[name]
    rng = np.random.default_rng(n)
    broken = sum(certifies_mean(draw(rng, n), mean * (1 - 1e-9), delta) for _ in range(DRAWS))
    assert broken <= int(binom.isf(1e-4, DRAWS, delta))


def test_the_count_of_broken_promises_would_find_a_normal_approximation() -> None:
    """The control of the test above: the bound of the central limit theorem breaks its promise."""
    draw, mean = FAMILIES["rare ones"]
    rng = np.random.default_rng(20)
    drawn = draw(rng, DRAWS * 20).reshape(DRAWS, 20)
    broken = (drawn.mean(1) + 1.2816 * drawn.std(1) / math.sqrt(20) < mean).sum()
    assert broken > int(binom.isf(1e-4, DRAWS, 0.1))


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_never_much_above_hoeffding_bentkus_and_below_it_for_losses_within_the_range(name: str) -> None:
    draw, _ = FAMILIES[name]
    rng = np.random.default_rng(7)
    drawn = [draw(rng, n) for n in (100, 1_000, 5_000) for _ in range(4)]
    ours = np.array([upper_mean_bound(losses, 0.05) for losses in drawn])
    theirs = np.array([hoeffding_bentkus(losses, 0.05) for losses in drawn])
    found = np.array([losses.mean() for losses in drawn])
    assert (ours - found <= 1.6 * (theirs - found) + 1e-9).all()
    if set(np.concatenate(drawn)) != {0.0, 1.0}:
        assert (ours < theirs).mean() >= 0.75


def test_without_a_loss_it_is_as_sharp_as_the_exact_bound_for_shares() -> None:
    for n in (100, 2_000):
        assert upper_mean_bound(np.zeros(n), 0.05) <= 1.15 * clopper_pearson_upper(0, n, 0.05)


def test_two_losses_by_hand() -> None:
    """The first bet assumes a variance of 1/4, the second (1/4 + (l - (1/2 + l) / 2)^2) / 2."""
    delta, first, second = 0.5, 0.2, 0.6
    variance = (0.25 + (first - (0.5 + first) / 2) ** 2) / 2
    bets = [min(1.0, math.sqrt(2 * math.log(2) / (2 * v))) for v in (0.25, variance)]

    def capital(mean: float) -> float:
        one = 1 - bets[0] * (first - mean)
        return max(one, one * (1 - bets[1] * (second - mean)))

    expected = brentq(lambda mean: capital(mean) - 1 / delta, 0.0, 3.0)
    found = upper_mean_bound(np.array([first, second]), delta)
    assert found == pytest.approx(min(1.0, expected), abs=1e-9)
    assert found < 1, "the case is chosen so that the bound says something"


@given(LOSSES, st.floats(0.001, 0.9), st.floats(-0.5, 1.5))
def test_a_mean_is_certified_exactly_from_the_bound_on(losses: F8, delta: float, mean: float) -> None:
    bound = upper_mean_bound(losses, delta)
    assert certifies_mean(losses, bound, delta)
    assert certifies_mean(losses, mean, delta) == (mean >= bound) or abs(mean - bound) < 1e-9


def test_no_loss_at_all_gives_one() -> None:
    assert upper_mean_bound(np.empty(0), 0.05) == 1.0
    assert not certifies_mean(np.empty(0), 0.999, 0.05)


@pytest.mark.parametrize("value", [0.0, 1e-300, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 100_000])
def test_it_is_a_number_for_one_row_and_for_a_hundred_thousand(value: float, n: int) -> None:
    bound = upper_mean_bound(np.full(n, value), 0.05)
    assert value <= bound <= 1.0
    if n == 100_000:
        assert bound - value < 1e-3 or value == 1.0


def test_a_smaller_delta_gives_a_larger_bound() -> None:
    losses = np.random.default_rng(0).beta(0.5, 4.0, 500)
    bounds = [upper_mean_bound(losses, delta) for delta in (0.2, 0.05, 0.01)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1]


@pytest.mark.parametrize("bad", [-1e-9, 1 + 1e-9, np.nan, np.inf])
def test_losses_outside_zero_to_one_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"one number in \[0, 1\] a row"):
        upper_mean_bound(np.array([0.5, bad]), 0.05)
    with pytest.raises(ValueError, match=r"one number in \[0, 1\] a row"):
        certifies_mean(np.zeros((2, 1)), 0.5, 0.05)


@pytest.mark.parametrize("delta", [0.0, 1.0, np.nan])
def test_a_level_outside_zero_to_one_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        upper_mean_bound(np.zeros(3), delta)
