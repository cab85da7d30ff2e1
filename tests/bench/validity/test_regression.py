"""The true shares of a regressor's promises, counted by hand and by the compiled pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.validity.partial import Cell
from bench.validity.regression import (
    draw_rows,
    every_row,
    limits_of,
    resplit_regression,
)
from bench.validity.regression_pools import NOISES, RegressionPool, regression_pool
from bench.validity.regression_shapes import (
    ABSOLUTE_FACTORS,
    FITTED_TOGETHER,
    REGRESSION_SHAPES,
    regression_policy,
)
from bench.validity.resplit import Certified, take
from bench.validity.summary import summarise
from bench.validity.truth import Outcome, outcome, served_by
from gateway.calibration.fold_scores import fold_scores
from gateway.calibration.intervals import fit_intervals, with_bounds
from gateway.calibration.judge import Judged
from gateway.calibration.served import serve
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import Certificate
from gateway.deployment.certification.alarms import Alarms, ladder_rows
from gateway.deployment.certification.ladder import certify_ladder
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import Fitted
from gateway.deployment.interval_model import with_intervals
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from guards.row_view import RowView
from tests.bench.validity.hand_made import some_contract

ROWS, OUTSIDE = 10, [7, 9]
"""Row i has an interval of width 2 + i / 5 around 0; the rows outside are off by 5, all others by 0.5."""


def _population() -> Judged:
    x = {"x": np.arange(ROWS, dtype=np.float32)[:, None]}
    reach = 1 + np.arange(ROWS) / 10
    answer = {"value": np.zeros(ROWS), "lower": -reach, "upper": reach}
    truth = np.where(np.isin(np.arange(ROWS), OUTSIDE), 5.0, 0.5)
    view, zeros = RowView.fit(x, frozenset()), np.zeros(ROWS, np.int64)
    rows = CalibrationRows(x, zeros, truth, {"primary": answer}, {}, "primary", view, lambda inputs: inputs)
    return Judged(rows, {}, {})


def _policy(mean: float) -> Policy:
    width = {"name": "width", "kind": "interval", "selective_error": 0.2, "max_width": 3.7}
    rung = {"name": "primary", "model": {"kind": "onnx", "path": "p.onnx"}, "budget_s": 0.01}
    return Policy.model_validate(
        {
            "schema": 1,
            "name": "hand-made",
            "task": "regression",
            "deadline_s": 1.0,
            "false_alarm_budget": 0.1,
            "answered_error": 0.2,
            "absolute_error": {"mean": mean, "clip": 4.0},
            "guards": [],
            "rungs": [{**rung, "checks": [{**width, "budget_s": 0.01, "on_error": "degrade"}]}],
            "expose": ["value"],
        }
    )


def _calibrate(chosen: Policy, population: Judged, seed: int = 0, rows: int = 20_000) -> Outcome:
    """One calibration on rows of the population written by hand, compared with the given one."""
    rng = np.random.default_rng(seed)
    folds = {name: take(_population(), rng.integers(0, ROWS, rows)) for name in ("tail", "cut", "risk")}
    return outcome(chosen, folds, population)


def test_true_shares_and_errors_of_a_regressor_are_those_counted_by_hand() -> None:
    found = _calibrate(_policy(mean=1.0), _population())

    # Row 9 is wider than 3.7. Of rows 0 to 8 row 7 lies outside, off by 5, of which 4 count.
    assert [(one.what, one.at_most, one.true) for one in found.promises] == [
        ("selective primary", 0.2, 1 / 9),
        ("answered", 0.2, 1 / 9),
        ("absolute error", 1.0, pytest.approx((8 * 0.5 + 4) / 9)),
    ]
    assert found.answered == 0.9


def test_a_mean_error_that_the_rows_do_not_support_refuses_the_calibration() -> None:
    assert _calibrate(_policy(mean=0.85), _population()) == Outcome("absolute error", (), 0.0)


def test_intervals_that_hold_less_of_the_population_than_of_the_file_are_found_broken() -> None:
    population = _population()
    truth = np.where(np.arange(ROWS) < 4, 5.0, 0.5)
    worse = Judged(replace(population.rows, truth=truth), {}, {})
    found = [_calibrate(_policy(mean=1.0), worse, seed, 500) for seed in range(20)]
    runs = [[Certified("by hand", 0.2, one)] for one in found]

    summary = summarise({Cell("by hand", 500): runs})
    assert {one.promise for one in summary.promises if one.is_broken} >= {
        "selective primary",
        "answered",
        "absolute error",
    }


@pytest.fixture(scope="module")
def uneven() -> RegressionPool:
    return regression_pool("uneven")


def test_the_whole_population_is_each_input_with_each_of_its_values(uneven: RegressionPool) -> None:
    every = every_row(uneven, uneven.rows)

    assert len(every) == uneven.y.size
    assert every.truth is not None
    np.testing.assert_array_equal(every.truth.reshape(uneven.y.shape), uneven.y)
    answered = every.answers["primary"]["value"].reshape(uneven.y.shape)
    value = uneven.rows.answers["primary"]["value"]
    np.testing.assert_array_equal(answered, np.repeat(value, uneven.y.shape[1], axis=1))


@pytest.mark.parametrize("name", NOISES)
def test_a_resplit_has_every_shape_at_every_promise(name: str) -> None:
    found = resplit_regression(name, 1_000, 0, REGRESSION_SHAPES)

    assert [(one.shape, one.budget) for one in found] == [
        (shape, r) for r in ABSOLUTE_FACTORS for shape in REGRESSION_SHAPES
    ]
    printed = {promise.what for one in found for promise in one.outcome.promises}
    guards = {"false alarm", "without primary"} if name == "uneven" else set[str]()
    assert printed >= {"selective primary", "answered"} | guards
    assert printed <= {"selective primary", "selective small", "answered", "absolute error"} | guards


@pytest.mark.parametrize(("fitted", "several"), FITTED_TOGETHER.items())
def test_shapes_that_are_fitted_together_have_the_same_intervals(
    uneven: RegressionPool, fitted: str, several: Sequence[str]
) -> None:
    every, limits = every_row(uneven, uneven.rows), limits_of("uneven")
    folds = {name: every.take(rows) for name, rows in draw_rows(uneven, 1_000, 0).items()}
    found = {}
    for shape in several:
        policy = regression_policy(shape, 0.2, limits, guarded=False)
        intervals = fit_intervals(Deployment(Path(), policy, None), folds, lambda step: None)
        found[shape] = {rung: one.interval.q for rung, one in intervals.items()}

    assert all(q.items() <= found[fitted].items() for q in found.values())


def test_every_shape_is_fitted_with_one_other() -> None:
    assert sorted(sum(FITTED_TOGETHER.values(), ())) == sorted(REGRESSION_SHAPES)


@pytest.mark.parametrize("shape", ["relative width", "two rungs"])
def test_every_number_ends_where_the_compiled_pipeline_ends_it(uneven: RegressionPool, shape: str) -> None:
    chosen = regression_policy(shape, 0.2, limits_of("uneven"), guarded=False)
    every = every_row(uneven, uneven.rows)
    folds = {name: every.take(rows) for name, rows in draw_rows(uneven, 3_000, 0).items()}
    intervals = fit_intervals(Deployment(Path(), chosen, None), folds, lambda step: None)
    nothing = Alarms(None, None)
    tail, cut, test = (
        ladder_rows(chosen, fold_scores(chosen, Judged(with_bounds(folds[name], intervals), {}, {})), nothing)
        for name in ("tail", "cut", "risk")
    )
    ladder = certify_ladder(chosen, tail.beside(cut), test)
    certificate = Certificate.model_construct(
        false_alarm=None, without_features=None, selective={}, unpromised_cuts=ladder.own
    )
    fitted, contract = Fitted(uneven.rows.view, {}, intervals), some_contract()
    models = with_intervals(chosen, uneven.models, uneven.rows.view, intervals)
    kept = KeptRows.of(uneven.rows)
    some = uneven.rows.take(np.arange(400))

    compiled = serve(chosen, Artifacts(models, contract, fitted, kept, certificate, "validity"), some)

    few = Judged(with_bounds(some, intervals), {}, {})
    planned = served_by(chosen, few, ladder_rows(chosen, fold_scores(chosen, few), nothing), ladder)
    for expected, by in zip(compiled.while_gone, planned.while_gone, strict=True):
        np.testing.assert_array_equal(by, expected)
    assert len(np.unique(planned.while_gone[0])) > 1
