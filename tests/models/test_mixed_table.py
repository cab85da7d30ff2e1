"""A classifier with a column an input, calibrated and opened: an outlier in any single column is withheld."""

from __future__ import annotations

import numpy as np
import pytest

from bench.mixed_rows import CATEGORIES, MISSING, SCALES, planted, rows
from bench.mixed_table import CAUGHT, Measured, measure


@pytest.fixture(scope="module", params=[0.02, 0.05])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return measure(tmp_path_factory.mktemp("mixed"), 1_500, request.param, fresh=300, seed=0)


def test_an_outlier_in_any_single_column_is_withheld_in_nine_rows_of_ten(measured: Measured) -> None:
    columns = {(one.column, one.planted) for one in measured.outliers}
    numbers = {(name, side) for name in SCALES for side in ("below", "above")}

    assert columns == numbers | {(name, "unseen") for name in CATEGORIES}
    assert [one for one in measured.outliers if one.share < CAUGHT] == []


def test_good_rows_are_withheld_within_the_budget(measured: Measured) -> None:
    error = np.sqrt(measured.budget * (1 - measured.budget) / 300)

    assert measured.good <= measured.budget + 2 * error
    assert measured.good_interval[0] <= measured.good <= measured.good_interval[1]
    assert measured.kept


def test_an_outlier_lies_ten_robust_sigmas_from_the_median() -> None:
    x = rows(20_000, np.random.default_rng(0))

    assert planted(x["tenure"], 1.0)[0, 0] == pytest.approx(300, abs=5)
    assert planted(x[MISSING], -1.0)[0, 0] == pytest.approx(-500, abs=15)
    assert planted(x["version"], 1.0)[0, 0] == 17
    assert planted(x["active"], 1.0)[0, 0] == 5  # ten standard deviations: its median deviation is 0
    assert set(planted(x["plan"], 0.0)[:, 0]) == {b"unseen"}
