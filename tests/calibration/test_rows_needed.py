"""Rows of a whole file for a promise, and promises for a file: each the inverse of the other, and enough."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

import gateway.cli.calibrate  # noqa: F401 (adds the command)
from gateway.calibration.folds import SHARES, fold_indices
from gateway.calibration.report import plan_rows
from gateway.calibration.rows_needed import (
    file_rows,
    least_budget,
    rows_for_budget,
    rows_for_error,
    supported_error,
)
from gateway.calibration.samples import count_samples
from gateway.cli.options import app
from guards.order_statistic import largest_k
from guards.selective import Counts, most_errors
from tests.support.calibration_evidence import number_policy_of, policy_of
from tests.support.deployments import CONFIGS, letters


@pytest.mark.parametrize("fold", SHARES)
@pytest.mark.parametrize("rows", [1, 59, 299, 2995])
def test_a_file_of_so_many_rows_leaves_enough_to_the_fold_and_one_fewer_does_not(
    fold: str, rows: int
) -> None:
    def in_fold(n: int) -> int:
        x = {"x": np.arange(n)}
        return len(fold_indices(count_samples(x, np.arange(n), None))[fold])

    n = file_rows(fold, rows)
    assert in_fold(n) >= rows
    if fold != "risk":  # the last fold has what is left over
        assert in_fold(n - 2) < rows


@pytest.mark.parametrize("budget", [0.002, 0.01, 0.05])
def test_rows_for_a_budget_certify_it(budget: float) -> None:
    in_cut = int(SHARES["cut"] * rows_for_budget(budget, 0.05))
    assert largest_k(in_cut, budget, 0.05) >= 1 > largest_k(in_cut - 1, budget, 0.05)
    assert budget <= least_budget(in_cut, 0.05) * 1.1


@pytest.mark.parametrize("n", [59, 100, 1600])
def test_the_least_budget_is_one_that_the_rows_certify(n: int) -> None:
    assert largest_k(n, least_budget(n, 0.05), 0.05) >= 1


@pytest.mark.parametrize(("r", "wrong"), [(0.05, 0.0), (0.05, 0.025), (0.25, 0.2)])
def test_rows_for_an_error_certify_it_nine_times_in_ten(r: float, wrong: float) -> None:
    tests = int(SHARES["risk"] * rows_for_error(r, 0.05, wrong))
    assert binom.cdf(most_errors(tests, r, 0.05), tests, wrong) >= (1.0 if not wrong else 0.88)


@pytest.mark.parametrize("counts", [Counts(500, 0), Counts(500, 20), Counts(60, 3)])
def test_a_supported_error_is_certified_by_the_counts_that_support_it(counts: Counts) -> None:
    assert counts.certifies(supported_error(counts, 0.05), 0.05)


def plan(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["calibrate", *arguments])
    return result.exit_code, result.output


def test_the_plan_needs_no_data_and_marks_what_the_policy_asks_for() -> None:
    code, text = plan(str(CONFIGS / "fashion"), "--plan")
    assert code == 0
    assert "in the policy" in text
    assert "good rows stopped" in text and "answers wrong" in text


def test_the_plan_of_a_regressor_speaks_of_intervals_and_that_of_an_opaque_model_of_no_errors() -> None:
    numbers = plan_rows(number_policy_of(), None)
    assert {one.promise for one in numbers} == {"good rows stopped", "true values outside the interval"}
    opaque = policy_of(check=False, task="opaque", answered_error=None)
    assert {one.promise for one in plan_rows(opaque, None)} == {"good rows stopped"}


def test_the_plan_says_what_a_file_is_too_small_for(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    with np.load(CONFIGS / "letters" / "letters.npz") as held:
        x = held[next(name for name in held if held[name].ndim == 2)][:900].astype(np.float32)
    np.savez(tmp_path / "few.npz", x=x + np.zeros((900, 1), np.float32), y=np.arange(900) % 26)
    code, text = plan(str(folder), "--data", str(tmp_path / "few.npz"), "--plan", "--json")
    assert code == 0
    found = {(one["promise"], one["at_most"]): one for one in json.loads(text)}
    assert found["good rows stopped", 0.02]["asked"]
    assert found["good rows stopped", 0.02]["enough"]
    assert not found["good rows stopped", 0.002]["enough"]
    assert all(one["rows"] > 0 for one in found.values())


def test_calibrating_without_data_says_what_to_give() -> None:
    result = CliRunner().invoke(app, ["calibrate", str(CONFIGS / "letters")])
    assert result.exit_code == 2
    assert "--data: is missing" in result.output and "--plan" in result.output


@pytest.mark.parametrize("share", [1e-12, 1e-7])
def test_a_tiny_promise_is_answered_at_once_and_without_memory(share: float) -> None:
    for rows in (rows_for_budget(share, 0.05), rows_for_error(share, 0.05, 0.0)):
        assert rows > 2.9 / share
