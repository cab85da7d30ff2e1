"""RawTabular: each fault of a table row is heard, and a missing value is suspicious, never an error."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.deployment.graph import record
from guards.raw_tabular import RawTabular
from guards.rows import F8, Signals
from tests.support.guard_world import known, world

S, Y = world(1, 600, "table")
FITTED = RawTabular.fit(S, Y, seed=0)
T = known(S.t)
GOOD = known(world(2, 400, "table")[0].t)
USUAL = float(np.quantile(FITTED.score(Signals(None, t=GOOD)), 0.99))


def score(x: F8) -> F8:
    return FITTED.score(Signals(None, t=x.astype(np.float32)))


def changed(column: int, value: float) -> F8:
    x = GOOD.astype(np.float64)
    x[:, column] = value
    return x


def test_good_rows_pass_as_often_as_they_should() -> None:
    assert (score(known(world(3, 400, "table")[0].t).astype(np.float64)) > USUAL).mean() < 0.03


@pytest.mark.parametrize(
    ("fault", "x"),
    [
        ("a fraction where there are counts", changed(4, 2.5)),
        ("a fraction where there are flags", changed(5, 0.5)),
        ("above the range", changed(3, 1.5)),
        ("below the range", changed(3, -0.5)),
        ("a broken correlation", changed(1, 0.0) - 4 * (np.arange(6) == 1)),
        ("missing", changed(2, np.nan)),
        ("infinite", changed(2, -np.inf)),
        ("far in every column", GOOD.astype(np.float64) * 9),
    ],
)
def test_each_fault_raises_the_score(fault: str, x: F8) -> None:
    assert (score(x) > USUAL).mean() > 0.9, fault


def test_a_correlation_broken_inside_every_range_raises_the_score() -> None:
    x = GOOD.astype(np.float64)
    x[:, 1] = np.random.default_rng(0).permutation(x[:, 1])
    assert (score(x) > USUAL).mean() > 0.85


def test_a_row_of_nothing_but_gaps_is_finite_and_the_oddest() -> None:
    gaps = score(np.full((1, 6), np.nan))
    assert np.isfinite(gaps).all()
    assert gaps[0] > score(changed(2, np.nan)).min()


def test_gaps_that_were_common_in_fit_cost_little_rare_ones_much() -> None:
    x = T.copy()
    rng = np.random.default_rng(0)
    x[rng.uniform(size=600) < 0.4, 2] = np.nan
    fitted = RawTabular.fit(Signals(None, t=x), Y, seed=0)
    common, rare = GOOD.copy(), GOOD.copy()
    common[:, 2], rare[:, 0] = np.nan, np.nan
    usual = np.quantile(fitted.score(Signals(None, t=GOOD)), 0.99)
    assert (fitted.score(Signals(None, t=common)) > usual).mean() < 0.1
    assert (fitted.score(Signals(None, t=rare)) > usual).mean() > 0.9


def test_what_is_no_table_or_does_not_vary_is_refused() -> None:
    y = np.zeros(100, np.int64)
    with pytest.raises(
        ValueError, match=r"raw_tabular: t has shape \[100, 1, 2, 2\], expected \[n, f >= 1\]"
    ):
        RawTabular.fit(Signals(None, t=np.zeros((100, 1, 2, 2), np.float32)), y, seed=0)
    with pytest.raises(ValueError, match=r"expected \[n, f >= 1\]"):
        RawTabular.fit(Signals(None, t=np.zeros((100, 0), np.float32)), y, seed=0)
    with pytest.raises(ValueError, match="all alike"):
        RawTabular.fit(Signals(None, t=np.ones((100, 3), np.float32)), y, seed=0)
    with pytest.raises(ValueError, match="79 rows to fit on, needs at least 80"):
        RawTabular.fit(Signals(None, t=T[:79]), Y[:79], seed=0)


def test_a_constant_column_that_changes_raises_the_score() -> None:
    x = np.concatenate([T, np.full((600, 1), 3.5, np.float32)], 1)
    fitted = RawTabular.fit(Signals(None, t=x), Y, seed=0)
    squeezed_score = x.copy()
    squeezed_score[:, 6] = 4.5
    assert fitted.score(Signals(None, t=squeezed_score)).min() > np.quantile(
        fitted.score(Signals(None, t=x)), 0.99
    )


def test_a_constant_column_beside_others_changes_no_score() -> None:
    x = np.concatenate([T, np.full((600, 1), 0.1, np.float32)], 1)
    wider = np.concatenate([GOOD, np.full((len(GOOD), 1), 0.1, np.float32)], 1)
    np.testing.assert_allclose(
        RawTabular.fit(Signals(None, t=x), Y, seed=0).score(Signals(None, t=wider)),
        FITTED.score(Signals(None, t=GOOD)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_recorded_as_a_graph_it_gives_the_same_numbers(gaps: float) -> None:
    """With heavy tails, gaps and whole numbers, so that every branch of the formula is recorded."""
    rng = np.random.default_rng(3)
    x = np.concatenate([T, rng.pareto(1.0, (600, 2)).astype(np.float32)], 1)
    x[rng.random(x.shape) < gaps] = np.nan
    fitted = RawTabular.fit(Signals(None, t=x), Y, seed=0)
    assert fitted.columns.heavy.any()
    graph = record("raw", lambda arrays: fitted.score(Signals(None, t=arrays["t"])), {"t": x[:3]})
    odd = np.concatenate([x, 50 * x, np.full((1, 8), np.nan, np.float32), np.full((1, 8), 3e38, np.float32)])
    np.testing.assert_allclose(
        graph.run({"t": odd}), fitted.score(Signals(None, t=odd)), rtol=1e-6, atol=1e-6
    )


def standing_out(x: F8, fitted: RawTabular = FITTED) -> F8:
    nats = fitted.standing_out(x.astype(np.float32))
    assert nats.shape == x.shape
    assert np.isfinite(nats).all()
    assert (nats >= 0).all()
    return nats


def test_in_good_rows_hardly_a_value_stands_out() -> None:
    assert (standing_out(GOOD.astype(np.float64)) > np.log(600)).mean() < 0.005


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 40.0), (2, -12.0), (3, 1.5), (4, 40.0), (4, 2.5), (5, 3.0), (2, np.nan), (3, np.inf)],
)
def test_one_odd_value_stands_out_by_itself(column: int, value: float) -> None:
    nats = standing_out(changed(column, value))
    assert (nats.argmax(1) == column).mean() > 0.98
    assert (nats[:, column] > np.log(600)).mean() > 0.98
    assert (np.delete(nats, column, 1) > np.log(600)).mean() < 0.02


def test_in_a_broken_relation_of_usual_values_the_columns_involved_stand_out() -> None:
    x = GOOD.astype(np.float64)
    x[:, 1] = np.roll(x[:, 1], 1)
    broken = np.abs(x[:, 1] - GOOD[:, 1]) > 1.5
    nats = standing_out(x)[broken]
    assert (np.sort(nats.argsort(1)[:, -2:], 1) == [0, 1]).all(1).mean() > 0.95
    assert (nats[:, :2].min(1) > np.log(600)).mean() > 0.9


def test_a_rare_category_stands_out_less_than_an_unseen_one() -> None:
    rng = np.random.default_rng(0)
    t = np.stack([rng.standard_normal(600), rng.choice([0.2, 2.0, 5.0], 600, p=[0.8, 0.19, 0.01])], 1)
    fitted = RawTabular.fit(Signals(None, t=t.astype(np.float32)), Y, seed=0)
    common, rare, unseen = standing_out(np.array([[0.0, 0.2], [0.0, 5.0], [0.0, 8.5]]), fitted)[:, 1]
    assert common < 1 < 3 < rare < 6.4 < unseen


def test_missing_values_of_a_common_pattern_neither_hide_nor_cost_anything() -> None:
    rng = np.random.default_rng(0)
    x = T.copy()
    x[rng.random(600) < 0.4, 1] = np.nan
    fitted = RawTabular.fit(Signals(None, t=x), Y, seed=0)
    fresh = GOOD.copy()
    usual = np.quantile(fitted.score(Signals(None, t=fresh)), 0.99)
    gone = fresh.copy()
    gone[:, 1] = np.nan
    assert (fitted.score(Signals(None, t=gone)) > usual).mean() < 0.05
    broken = fresh.copy()
    broken[:, 1] = np.roll(broken[:, 1], 1)
    far = np.abs(broken[:, 1] - fresh[:, 1]) > 1.5
    assert (fitted.score(Signals(None, t=broken[far])) > usual).mean() > 0.9
