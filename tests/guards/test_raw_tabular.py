"""RawTabular: each fault of a table row is heard, and a missing value is suspicious, never an error."""

from __future__ import annotations

import numpy as np
import pytest

from guards.raw_tabular import Columns, RawTabular
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


def test_columns_of_a_table_that_one_can_count() -> None:
    x = np.array([[1.0, 0.5, 7.0, np.nan], [3.0, 1.5, 7.0, np.nan], [np.nan, 2.5, 7.0, np.nan]])
    columns = Columns.fit(x)
    assert columns.mean.tolist() == [2.0, 1.5, 7.0, 0.0]
    assert columns.whole.tolist() == [1, 0, 1, 0]
    assert columns.low.tolist() == [1.0, 0.5, 7.0, 0.0]
    assert columns.high.tolist() == [3.0, 2.5, 7.0, 0.0]
    assert columns.scale.tolist() == pytest.approx([1.0, (2 / 3) ** 0.5, 1.0, 1.0])
    np.testing.assert_allclose(columns.missing, -np.log([2 / 4, 1 / 4, 1 / 4, 1.0]))
    beyond, broken = columns.violations(np.array([[5.0, 0.0, 7.25, 0.0], [2.0, 1.0, 7.0, 0.0]]))
    assert beyond.tolist() == [1.0 + 0.25 + 0.25, 0.0]
    assert broken.tolist() == [0.25, 0.0]
    filled, lost = columns.filled(np.array([[np.nan, 1.0, np.inf, 3.0]]))
    assert filled.tolist() == [[2.0, 1.0, 7.0, 3.0]]
    assert lost.tolist() == pytest.approx([np.log(2) + np.log(4)])


def test_what_stands_in_for_a_gap_among_whole_numbers_is_whole() -> None:
    columns = Columns.fit(np.array([[0.0], [0.0], [1.0], [np.nan]]))
    assert columns.mean[0] == pytest.approx(1 / 3)
    assert columns.fill[0] == 0.0


def test_numbers_too_large_for_a_float32_fraction_are_not_called_whole() -> None:
    assert Columns.fit(np.array([[2.0**23], [2.0**24]])).whole[0] == 0
    assert Columns.fit(np.array([[2.0**22], [5.0]])).whole[0] == 1


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


def test_a_constant_column_is_constant_whatever_the_rounding_of_its_mean() -> None:
    tenth, huge = np.float64(np.float32(0.1)), np.float64(np.float32(4012345679))
    x = np.stack([np.full(997, tenth), np.full(997, huge), np.append(np.full(996, tenth), np.nan)], 1)
    columns = Columns.fit(x)
    assert columns.mean.tolist() == columns.fill.tolist() == [tenth, huge, tenth]
    assert columns.low.tolist() == columns.high.tolist() == columns.mean.tolist()
    assert columns.scale.tolist() == pytest.approx([1.0, 1e-3 * huge, 1.0])
    assert columns.per_range.tolist() == pytest.approx([1.0, 1e3 / huge, 1.0])


def test_a_column_that_varies_by_one_rounding_has_no_smaller_scale_than_float32_noise() -> None:
    x = np.float64(4012345600) + 256 * (np.arange(100.0) % 2)[:, None]
    assert Columns.fit(x).scale[0] == pytest.approx(4012.3458, rel=1e-4)
    fine = Columns.fit(np.float64(1.7e9) + 128 * np.arange(600.0)[:, None])
    assert fine.scale[0] == pytest.approx(128 * 600 / 12**0.5, rel=1e-3)


def test_a_constant_column_beside_others_changes_no_score() -> None:
    x = np.concatenate([T, np.full((600, 1), 0.1, np.float32)], 1)
    wider = np.concatenate([GOOD, np.full((len(GOOD), 1), 0.1, np.float32)], 1)
    np.testing.assert_allclose(
        RawTabular.fit(Signals(None, t=x), Y, seed=0).score(Signals(None, t=wider)),
        FITTED.score(Signals(None, t=GOOD)),
        rtol=1e-6,
    )
