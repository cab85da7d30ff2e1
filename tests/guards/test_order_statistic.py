"""The certified cut: the table of guards.md, and the promise itself by simulation, with and without ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom, binom

from guards.order_statistic import Cut, certified_cut, largest_k, samples_needed
from guards.rows import F8

RATES = (0.001, 0.005, 0.01, 0.02, 0.05)
TABLE = {
    500: (0, 0, 2, 5, 17),
    1_000: (0, 2, 5, 13, 39),
    2_000: (0, 5, 13, 30, 84),
    5_000: (2, 17, 39, 84, 225),
    10_000: (5, 39, 84, 177, 464),
}
DRAWS = 400


@pytest.mark.parametrize("n", TABLE)
def test_the_table_of_the_guards_page(n: int) -> None:
    assert tuple(largest_k(n, a, 0.05) for a in RATES) == TABLE[n]


@given(st.integers(1, 400), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_is_the_largest_k_whose_beta_tail_is_within_delta(n: int, a: float, delta: float) -> None:
    k = largest_k(n, a, delta)
    assert k == 0 or beta.sf(a, k, n + 1 - k) <= delta + 1e-10
    assert k == n or beta.sf(a, k + 1, n - k) > delta - 1e-10


def test_samples_needed_is_exactly_enough() -> None:
    assert samples_needed(0.01, 0.05) == 299
    assert samples_needed(0.001, 0.05) == 2_995
    assert samples_needed(0.9, 0.5) == 1
    for a in (0.003, 0.02, 0.25):
        for delta in (0.01, 0.2):
            n = samples_needed(a, delta)
            assert largest_k(n, a, delta) >= 1
            assert largest_k(n - 1, a, delta) == 0


def test_too_few_samples_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(
        ValueError, match=r"298 samples cannot certify a false-alarm rate of 0\.01 .* 299 would do"
    ):
        certified_cut(np.arange(298.0), 0.01, 0.05)
    with pytest.raises(ValueError, match="0 samples cannot certify"):
        certified_cut(np.zeros(0), 0.01, 0.05)


@pytest.mark.parametrize(("a", "delta"), [(0.0, 0.05), (1.0, 0.05), (0.01, 0.0), (0.01, 1.0), (np.nan, 0.05)])
def test_rates_outside_zero_to_one_are_refused(a: float, delta: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        certified_cut(np.arange(1000.0), a, delta)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        samples_needed(a, delta)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        certified_cut(np.append(np.arange(1000.0), bad), 0.01, 0.05)


def test_the_cut_lies_between_the_kth_and_the_next_larger_score() -> None:
    scores = np.random.default_rng(0).permutation(1000).astype(np.float64)
    cut = certified_cut(scores, 0.01, 0.05)
    assert (cut.n, cut.k, cut.a, cut.delta) == (1000, 5, 0.01, 0.05)
    assert 995 < cut.value < 996
    assert (scores >= cut.value).sum() == 4


def test_scores_tied_with_the_kth_raise_no_alarm() -> None:
    scores = np.concatenate([np.zeros(990), np.ones(7), np.full(3, 2.0)])
    cut = certified_cut(scores, 0.01, 0.05)
    assert cut.k == 5
    assert (scores >= cut.value).sum() == 3
    flat = certified_cut(np.zeros(1000), 0.01, 0.05)
    assert (np.zeros(1000) >= flat.value).sum() == 0


def too_many(delta: float) -> int:
    """How many of DRAWS broken promises a correct cut exceeds with probability 1e-4 at most."""
    return int(binom.isf(1e-4, DRAWS, delta))


@pytest.mark.parametrize(("n", "a", "delta"), [(300, 0.01, 0.05), (230, 0.01, 0.1)])
def test_the_promise_is_kept_on_continuous_scores_and_one_k_more_would_break_it(
    n: int, a: float, delta: float
) -> None:
    rng = np.random.default_rng(1)
    broken = broken_by_next = 0
    for _ in range(DRAWS):
        scores = rng.uniform(size=n)  # the false-alarm rate of a cut is then 1 - cut
        cut = certified_cut(scores, a, delta)
        broken += 1 - cut.value > a
        broken_by_next += 1 - np.sort(scores)[-cut.k - 1] > a
    assert broken <= too_many(delta) < broken_by_next
    assert broken > 0, "a cut that never errs is looser than it need be"


@pytest.mark.parametrize("levels", [2, 6, 40])
def test_the_promise_is_kept_on_tied_scores_and_the_kth_itself_would_break_it(levels: int) -> None:
    rng = np.random.default_rng(levels)
    chance = rng.dirichlet(np.full(levels, 0.5))
    chance[-1] = 0.011  # a rare top level, just over the allowed rate
    chance /= chance.sum()
    reach = np.append(np.cumsum(chance[::-1])[::-1], 0.0)  # P(S >= level)
    broken = broken_by_kth = 0
    for _ in range(DRAWS):
        scores = rng.choice(levels, 300, p=chance).astype(np.float64)
        cut = certified_cut(scores, 0.01, 0.05)
        broken += reach[int(np.ceil(cut.value))] > 0.01
        broken_by_kth += reach[int(np.sort(scores)[-cut.k])] > 0.01
    assert broken <= too_many(0.05) < broken_by_kth


@pytest.mark.parametrize("calibration_noise", [0.0, 1e-9])
def test_the_promise_is_kept_where_served_scores_differ_in_their_last_digits(
    calibration_noise: float,
) -> None:
    """Onnxruntime gives every row of an atom slightly more than numpy did; the atoms share 3 % each."""
    rng = np.random.default_rng(3)
    level = np.arange(1.0, 34.0) / 7
    served = rng.choice(level, 20_000) * (1 + 1e-9)
    broken = broken_by_next_float = 0
    for _ in range(DRAWS):
        scores = rng.choice(level, 400) * (1 + calibration_noise * rng.uniform(-1, 1, 400))
        cut = certified_cut(scores, 0.02, 0.05)
        next_float = np.nextafter(np.sort(scores)[-cut.k], np.inf)
        assert cut.value >= next_float
        broken += bool(np.mean(served >= cut.value) > 0.02)
        broken_by_next_float += bool(np.mean(served >= next_float) > 0.02)
    assert broken <= too_many(0.05) < broken_by_next_float


@pytest.mark.parametrize(("levels", "m"), [(3, 200), (15, 200), (15, 2000)])
def test_alarms_on_served_fresh_rows_exceed_no_share_more_often_than_a_beta_binomial(
    levels: int, m: int
) -> None:
    """Ties make the cut stricter only: at each share the exact law for distinct scores is the worst case."""
    rng = np.random.default_rng(levels)
    n, a, delta = 400, 0.05, 0.05
    population = np.sort(rng.exponential(1.0, levels))[rng.geometric(0.3, 50_000) % levels]
    alarms = np.zeros(DRAWS)
    for draw in range(DRAWS):
        drawn = rng.choice(population, n + m)
        noisy = drawn * (1 + 1e-9 * rng.uniform(-1, 1, n + m))
        alarms[draw] = (noisy[n:] >= certified_cut(drawn[:n], a, delta).value).sum()
    k = largest_k(n, a, delta)
    for share in (0.02, a, 0.06):
        most = int(binom.isf(1e-4, DRAWS, betabinom.sf(int(share * m), m, k, n + 1 - k)))
        assert (alarms > share * m).sum() <= most


def test_the_cut_does_not_depend_on_the_order_of_the_scores() -> None:
    scores: F8 = np.random.default_rng(0).exponential(1.0, 700)
    assert certified_cut(scores, 0.02, 0.05) == certified_cut(scores[::-1].copy(), 0.02, 0.05)
    assert isinstance(certified_cut(scores, 0.02, 0.05), Cut)
