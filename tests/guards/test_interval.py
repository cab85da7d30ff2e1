"""Intervals: the factor by hand, coverage over re-splits, ties, batches, and the planned rate's chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import betabinom, binom

from guards.arrays import pack, unpack
from guards.interval import Interval, planned_miscoverage
from guards.rows import F8
from guards.selective import Counts, most_errors

Table = NDArray[np.float32]
Drawn = tuple[Table, F8]
Draw = Callable[[np.random.Generator, int], Drawn]
Model = Callable[[Table], F8]
Ends = tuple[NDArray[Any] | None, NDArray[Any] | None]
RESPLITS = 200
FIRST, PILOT, TEST = 300, 400, 400


def drawn(noise: Callable[[np.random.Generator, Table], F8]) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> Drawn:
        t = rng.uniform(-2, 2, (n, 3)).astype(np.float32)
        return t, np.sin(t[:, 0].astype(np.float64)) * 3 + t[:, 1] + noise(rng, t)

    return draw


REGRESSIONS: dict[str, Draw] = {
    "homoscedastic": drawn(lambda rng, t: rng.normal(0, 0.5, len(t))),
    "heteroscedastic": drawn(lambda rng, t: rng.normal(0, 1, len(t)) * (0.05 + np.square(t[:, 1]))),
    "heavy tails": drawn(lambda rng, t: rng.standard_t(1.5, len(t)) * 0.3),
}


def polynomial(rows: Drawn) -> Model:
    """Least squares on powers up to three of each column."""

    def powers(t: Table) -> F8:
        x = t.astype(np.float64)
        return np.column_stack([np.ones(len(x)), x, x**2, x**3])

    weights = np.linalg.lstsq(powers(rows[0]), np.clip(rows[1], -9, 9), rcond=None)[0]
    return lambda t: np.asarray(powers(t) @ weights)


def cut(rows: Drawn, at: slice) -> Drawn:
    return rows[0][at], rows[1][at]


def normalised(model: Model, first: Drawn, pilot: Drawn, miscoverage: float) -> Interval:
    (t, y), (pilot_t, pilot_y) = first, pilot
    return Interval.fit(
        t, model(t), y, None, None, pilot_t, model(pilot_t), pilot_y, None, None, miscoverage, seed=0
    )


def outside(y: F8, ends: tuple[F8, F8]) -> NDArray[np.bool_]:
    return np.asarray((y < ends[0]) | (y > ends[1]))


def too_many(draws: int, share: float) -> int:
    """More than this happens by chance once in ten thousand runs."""
    return int(binom.isf(1e-4, draws, share))


def simple(value: F8, y: F8, miscoverage: float) -> Interval:
    """Without a table, on the same rows for both folds: half-widths of one size."""
    return Interval.fit(None, value, y, None, None, None, value, y, None, None, miscoverage, seed=0)


@pytest.mark.parametrize("n", [19, 20, 57, 1_000])
@pytest.mark.parametrize("miscoverage", [0.05, 0.1, 0.5, 0.93])
def test_a_constant_interval_reaches_the_residual_of_the_conformal_rank(n: int, miscoverage: float) -> None:
    """MAPIE and crepes: the ceil((1 - miscoverage)(n + 1))-th smallest absolute residual."""
    y = np.random.default_rng(n).normal(size=n)
    expected = np.sort(np.abs(y))[int(np.ceil((1 - miscoverage) * (n + 1) - 1e-9)) - 1]
    low, high = simple(np.zeros(n), y, miscoverage).bounds(None, np.array([5.0]), None, None)
    assert high[0] - 5 == pytest.approx(expected, rel=1e-3) and high[0] - 5 > expected
    assert low[0] == pytest.approx(10 - high[0])


@pytest.mark.parametrize("miscoverage", [0.05, 0.3, 0.9])
def test_quantiles_are_moved_by_the_conformal_rank_of_how_far_they_miss(miscoverage: float) -> None:
    """Romano et al.: E = max(lower - y, y - upper), the same rank of E."""
    rng = np.random.default_rng(0)
    lower, y = rng.normal(size=(2, 99))
    upper = lower + rng.uniform(0, 3, 99)
    expected = np.sort(np.maximum(lower - y, y - upper))[int(np.ceil((1 - miscoverage) * 100 - 1e-9)) - 1]
    rows = ((lower + upper) / 2, y, lower, upper)
    found = Interval.fit(None, *rows, None, *rows, miscoverage, seed=0)
    low, high = found.bounds(None, rows[0], lower - 10, upper + 10)
    np.testing.assert_allclose(low, lower - 10 - expected, atol=1e-3)
    np.testing.assert_allclose(high, upper + 10 + expected, atol=1e-3)


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize("miscoverage", [0.05, 0.2])
def test_no_more_rows_than_asked_lie_outside_over_resplits(name: str, miscoverage: float) -> None:
    """Given the first rows, those outside of a split are beta-binomial: mean and single splits are held."""
    rng = np.random.default_rng(3)
    draw = REGRESSIONS[name]
    model = polynomial(draw(rng, 500))
    pool = draw(rng, FIRST + PILOT + TEST)
    counts = np.zeros(RESPLITS)
    for i in range(RESPLITS):
        order = rng.permutation(len(pool[1]))
        first, pilot, test = ((pool[0][at], pool[1][at]) for at in np.split(order, np.cumsum([FIRST, PILOT])))
        found = normalised(model, first, pilot, miscoverage)
        counts[i] = outside(test[1], found.bounds(test[0], model(test[0]), None, None)).sum()
    j = int(miscoverage * (PILOT + 1) + 1e-9) - 1
    law = betabinom(TEST, j + 1, PILOT - j)
    assert counts.mean() <= law.mean() + 4 * law.std() / np.sqrt(RESPLITS)
    assert counts.mean() >= 0.8 * law.mean(), "and hardly fewer: the interval is no wider than it need be"
    assert (counts > law.ppf(0.95)).sum() <= too_many(RESPLITS, 0.05)


def test_it_is_narrow_where_the_model_is_sure_and_covers_there_as_well() -> None:
    rng = np.random.default_rng(0)
    draw = REGRESSIONS["heteroscedastic"]
    model = polynomial(draw(rng, 2_000))
    found = normalised(model, draw(rng, 2_000), draw(rng, 2_000), 0.1)
    t, y = draw(rng, 4_000)
    low, high = found.bounds(t, model(t), None, None)
    sure, unsure = np.abs(t[:, 1]) < 0.5, np.abs(t[:, 1]) > 1.5
    assert (high - low)[unsure].mean() > 3 * (high - low)[sure].mean()
    same = outside(y, simple(model(t), y, 0.1).bounds(None, model(t), None, None))[unsure].mean()
    assert outside(y, (low, high))[unsure].mean() < 0.75 * same, "one width for all rows misses more of these"


@pytest.mark.parametrize("name", REGRESSIONS)
@pytest.mark.parametrize(("r", "pilot", "test"), [(0.05, 1_500, 700), (0.1, 600, 300), (0.2, 400, 200)])
def test_the_planned_rate_passes_the_exact_test_nineteen_times_in_twenty(
    name: str, r: float, pilot: int, test: int
) -> None:
    rng = np.random.default_rng(11)
    draw = REGRESSIONS[name]
    model = polynomial(draw(rng, 500))
    planned = planned_miscoverage(r, 0.05, pilot, test)
    first = draw(rng, 200)
    failed = 0
    for _ in range(RESPLITS):
        found = normalised(model, first, draw(rng, pilot), planned)
        t, y = draw(rng, test)
        errors = int(outside(y, found.bounds(t, model(t), None, None)).sum())
        failed += not Counts(test, errors).certifies(r, 0.05)
    assert failed <= too_many(RESPLITS, 0.05)
    assert planned > r / 3


@given(st.floats(0.02, 0.5), st.floats(0.01, 0.3), st.integers(1, 900), st.integers(0, 900))
@settings(max_examples=80)
def test_it_plans_the_largest_rate_that_passes_with_that_chance(
    r: float, delta: float, pilot: int, test: int
) -> None:
    planned = planned_miscoverage(r, delta, pilot, test)
    j = round(planned * (pilot + 1)) - 1
    most = most_errors(test, r, delta)
    assert j == 0 or betabinom.cdf(most, test, j + 1, pilot - j) >= 0.95 - 1e-9
    assert j + 1 == pilot or betabinom.cdf(most, test, j + 2, pilot - j - 1) < 0.95 + 1e-9
    y = np.arange(1.0, pilot + 1)
    if pilot > 1:
        ends = simple(np.zeros(pilot), y, planned).bounds(None, np.zeros(pilot), None, None)
        assert outside(y, ends).sum() == j


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_rows_that_repeat_stay_inside_when_served_with_another_last_digit(noise: float) -> None:
    """A tree with few leaves on whole numbers: a third of all residuals is exactly 2."""
    rng = np.random.default_rng(0)
    value = rng.choice([1000.0, 2000.0], 3_000)
    y = value + rng.choice([-2.0, 0.0, 1.0], 3_000)
    found = simple(value, y, 0.05)
    served = value * (1 + noise * rng.uniform(-1, 1, 3_000))
    low, high = found.bounds(None, served, None, None)
    assert not outside(y, (low, high)).any()
    assert (high - low).max() < 4.1


@pytest.mark.parametrize("quantiles", [False, True])
def test_a_row_has_the_same_interval_alone_as_in_any_batch_to_the_last_bit(quantiles: bool) -> None:
    rng = np.random.default_rng(0)
    t, y = REGRESSIONS["heteroscedastic"](rng, 900)
    value = (y + rng.normal(size=900)).astype(np.float32)
    ends: Ends = (value - 1, value + 1) if quantiles else (None, None)
    found = Interval.fit(t, value, y, *ends, t, value, y, *ends, 0.1, seed=0)
    low, high = found.bounds(t, value, *ends)
    for size in (1, 7, 64):
        parts = [
            found.bounds(
                t[i : i + size], value[i : i + size], *(e if e is None else e[i : i + size] for e in ends)
            )
            for i in range(0, 900, size)
        ]
        assert np.concatenate([p[0] for p in parts]).tobytes() == low.tobytes()
        assert np.concatenate([p[1] for p in parts]).tobytes() == high.tobytes()


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3),
    st.lists(st.floats(-50, 50), min_size=2, max_size=2),
    st.booleans(),
)
def test_bounds_are_finite_in_order_and_grow_with_q(
    row: list[float], factors: list[float], quantiles: bool
) -> None:
    rng = np.random.default_rng(0)
    t, y = REGRESSIONS["heavy tails"](rng, 60)
    ends: Ends = (y - 1, y + 0.5) if quantiles else (None, None)
    found = Interval.fit(t, y + 0.1, y, *ends, t, y + 0.1, y, *ends, 0.1, seed=0)
    served = [np.array([number]) for number in row]
    small, large = sorted(factors if quantiles else np.abs(factors).tolist())
    inner, outer = (
        replace(found, q=q).bounds(np.full((1, 3), np.nan, np.float32), *served) for q in (small, large)
    )
    assert np.isfinite([inner, outer]).all()
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]


def test_a_model_without_an_error_gets_intervals_of_almost_no_width() -> None:
    y = np.linspace(1, 2, 100)
    low, high = simple(y, y, 0.05).bounds(None, y, None, None)
    assert (low < y).all() and (y < high).all() and (high - low).max() < 1e-4


@pytest.mark.parametrize("quantiles", [False, True])
@pytest.mark.parametrize("table", [False, True])
def test_it_is_stored_and_read_bit_identical(quantiles: bool, table: bool) -> None:
    rng = np.random.default_rng(0)
    rows, y = REGRESSIONS["homoscedastic"](rng, 50)
    t = rows if table else None
    ends: Ends = (y - 1, y + 1) if quantiles else (None, None)
    found = Interval.fit(t, y, y + rng.normal(size=50), *ends, t, y, y, *ends, 0.1, seed=0)
    read = unpack(Interval, "interval", pack("interval", found))
    for one, other in zip(found.bounds(t, y, *ends), read.bounds(t, y, *ends), strict=True):
        assert one.tobytes() == other.tobytes()
    assert (read.q, read.miscoverage, read.quantiles) == (found.q, found.miscoverage, found.quantiles)


def test_too_few_pilot_rows_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(ValueError, match=r"98 pilot rows give no interval that misses 0\.01 .* 99 would do"):
        simple(np.zeros(98), np.ones(98), 0.01)
    simple(np.zeros(99), np.ones(99), 0.01)


def fit_one(**changed: Any) -> Interval:
    names = ("t", "value", "y", "lower", "upper")
    rows: dict[str, Any] = dict.fromkeys([*names, *(f"pilot_{name}" for name in names)])
    rows |= {name: np.zeros(30) for name in ("value", "y", "pilot_value", "pilot_y")}
    return Interval.fit(**(rows | {"miscoverage": 0.1, "seed": 0} | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lower": np.zeros(30)}, "one of lower and upper"),
        ({"pilot_upper": np.zeros(30)}, "one of lower and upper"),
        ({"lower": np.zeros(30), "upper": np.zeros(30)}, "needs the model's lower and upper"),
        ({"value": np.zeros((30, 1))}, "value is not one finite number for each of 30 rows"),
        ({"pilot_y": np.full(30, np.nan)}, "y is not one finite number"),
        ({"miscoverage": 0.0}, "strictly between 0 and 1"),
        ({"miscoverage": 1.0}, "strictly between 0 and 1"),
        ({"t": np.zeros((30, 2), np.float32)}, "the table has shape None"),
    ],
)
def test_rows_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_one(**changed)


@pytest.mark.parametrize(
    ("r", "delta", "pilot", "message"),
    [
        (0.0, 0.1, 9, r"r is 0\.0, delta 0\.1; both must lie strictly between 0 and 1"),
        (0.1, 1.0, 9, r"r is 0\.1, delta 1\.0; both must lie strictly between 0 and 1"),
        (0.1, 0.1, 0, "there is no pilot row; give more rows"),
    ],
)
def test_a_plan_without_rows_or_rates_is_refused(r: float, delta: float, pilot: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned_miscoverage(r, delta, pilot, 100)
