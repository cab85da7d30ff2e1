"""RawTabular: each fault of a table row is heard, and a missing value is suspicious, never an error."""

from __future__ import annotations

import numpy as np
import pytest

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
