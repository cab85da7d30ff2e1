"""Columns: a value's rarity is on its column's own scale, whatever the distribution."""

from __future__ import annotations

import numpy as np
import pytest

from guards.columns import Columns, known, tail_line
from guards.rows import F8

RNG = np.random.default_rng(0)
N = 4000
DRAWN: dict[str, F8] = {
    "normal": RNG.standard_normal(N),
    "log-normal": RNG.lognormal(0, 1.5, N),
    "Pareto": RNG.pareto(1.5, N),
    "exponential": RNG.exponential(1, N),
    "counts": RNG.poisson(3, N).astype(np.float64),
    "geometric": RNG.geometric(0.3, N).astype(np.float64),
    "mostly zero": np.where(RNG.random(N) < 0.08, RNG.lognormal(7, 0.5, N), 0.0),
    "uniform": RNG.uniform(0, 1, N),
}


def filled(columns: Columns, row: list[float]) -> F8:
    x = np.array([row])
    return columns.filled(x, known(x))


def nats(columns: Columns, x: F8) -> F8:
    return columns.rarities(columns.standard(x[:, None]))[:, 0]


@pytest.mark.parametrize("name", DRAWN)
def test_fresh_values_reach_u_nats_in_a_share_of_about_exp_minus_u(name: str) -> None:
    x = DRAWN[name]
    u = nats(Columns.fit(x[::2, None]), x[1::2])
    for level in (4.0, 5.5):
        assert (u >= level).mean() < 6 * np.exp(-level), level
    assert u.max() < 25


@pytest.mark.parametrize("name", DRAWN)
def test_shift_and_scale_of_a_column_change_nothing(name: str) -> None:
    x = DRAWN[name]
    one = nats(Columns.fit(x[:, None]), x)
    other = nats(Columns.fit(1e4 * x[:, None] - 3e3), 1e4 * x - 3e3)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_only_tails_that_are_heavier_than_exponential_are_bent() -> None:
    heavy = {name for name, x in DRAWN.items() if Columns.fit(x[:, None]).heavy[0]}
    assert heavy == {"log-normal", "Pareto"}


def test_both_sides_of_a_skewed_column_have_a_tail_of_their_own() -> None:
    x = DRAWN["exponential"]
    low, high = nats(Columns.fit(x[:, None]), np.array([-1.0, 4.0]))
    assert low > 15 > 6 > high > 3


def test_a_few_gross_errors_in_fit_do_not_hide_others() -> None:
    x = DRAWN["normal"].copy()
    x[:12] = 1e6
    assert nats(Columns.fit(x[:, None]), np.array([10.0]))[0] > 8


def test_a_binary_column_has_rare_values_only_outside_its_two() -> None:
    flag = (RNG.random(N) < 0.4).astype(np.float64)
    u = nats(Columns.fit(flag[:, None]), np.array([0.0, 1.0, 2.0, -1.0]))
    assert (u[:2] < 1.5).all()
    assert (u[2:] > 10).all()


def test_columns_of_a_table_that_one_can_count() -> None:
    x = np.array([[1.0, 0.5, 7.0, np.nan], [3.0, 1.5, 7.0, np.nan], [np.nan, 2.5, 7.0, np.nan]])
    columns = Columns.fit(x)
    assert columns.mean.tolist() == [2.0, 1.5, 7.0, 0.0]
    assert columns.fill.tolist() == [2.0, 1.5, 7.0, 0.0]
    assert columns.whole.tolist() == [1, 0, 1, 0]
    assert columns.heavy.tolist() == [0, 0, 0, 0]
    assert columns.scale.tolist() == pytest.approx([1.0, (2 / 3) ** 0.5, 1.0, 1.0])
    np.testing.assert_allclose(columns.standard(filled(columns, [3.0, np.inf, 9.0, np.nan])), [[1, 0, 2, 0]])
    assert columns.fractions(filled(columns, [5.25, 0.4, np.nan, 0.5])).tolist() == [[0.25, 0, 0, 0]]


def test_the_line_through_a_tail_that_one_can_count() -> None:
    scores = np.concatenate([np.zeros(160), np.full(30, 1.0), np.full(6, 2.0), np.full(3, 3.0), [4.0]])
    slope, at_zero = tail_line(scores, 0.1)  # from 2 on: excesses of 0, 1 and 2 by steps of one
    mean = (3 * 1 + 2) / 10
    assert slope == pytest.approx(np.log(1 + 1 / mean))
    assert at_zero + 2 * slope == pytest.approx(-np.log(10 / 200))
    assert tail_line(np.zeros(50), 0.1) == pytest.approx((10.0, 0.0))


def test_what_stands_in_for_a_gap_among_whole_numbers_is_whole() -> None:
    assert Columns.fit(np.array([[0.0], [1.0], [2.0], [5.0], [np.nan]])).fill[0] == 2.0


def test_numbers_too_large_for_a_float32_fraction_are_not_called_whole() -> None:
    assert Columns.fit(np.array([[2.0**23], [2.0**24]])).whole[0] == 0
    assert Columns.fit(np.array([[2.0**22], [5.0]])).whole[0] == 1


def test_a_constant_column_is_constant_whatever_the_rounding_of_its_mean() -> None:
    tenth, huge = np.float64(np.float32(0.1)), np.float64(np.float32(4012345679))
    x = np.stack([np.full(997, tenth), np.full(997, huge), np.append(np.full(996, tenth), np.nan)], 1)
    columns = Columns.fit(x)
    assert columns.mean.tolist() == columns.fill.tolist() == [tenth, huge, tenth]
    assert columns.scale.tolist() == pytest.approx([1.0, 1e-3 * huge, 1.0])
    np.testing.assert_array_equal(columns.standard(columns.filled(x, known(x))), np.zeros((997, 3)))


def test_a_column_that_varies_by_one_rounding_has_no_smaller_scale_than_float32_noise() -> None:
    x = np.float64(4012345600) + 256 * (np.arange(100.0) % 2)[:, None]
    assert Columns.fit(x).scale[0] == pytest.approx(4012.3458, rel=1e-4)
    fine = Columns.fit(np.float64(1.7e9) + 128 * np.arange(600.0)[:, None])
    assert fine.scale[0] == pytest.approx(128 * 600 / 12**0.5, rel=1e-3)


def test_a_small_group_of_good_rows_that_lies_apart_is_no_rarer_than_it_is() -> None:
    x = DRAWN["normal"].copy()
    x[:60] = 30 + 0.1 * x[:60]
    assert np.median(nats(Columns.fit(x[:, None]), x[:60])) < 8
