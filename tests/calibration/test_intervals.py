"""The intervals that calibration fits for the rungs that check them, and rows whose answers have bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from gateway.calibration.intervals import fit_intervals, with_bounds
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.rows import CalibrationRows
from guards.difficulty import Constant, Neighbours
from tests.support.regressors import BASE, WEIGHTS, drawn, interval, policy_of

Array = NDArray[Any]
CHECKS = [interval(), None, interval(selective_error=0.3)]


def deployment(folder: Path, checks: list[dict[str, Any] | None]) -> Deployment:
    (folder / "gateway.yaml").write_text(yaml.safe_dump(policy_of(checks), sort_keys=False))
    return Deployment.read(folder)


def rows(n: int, seed: int = 0, **more: Array) -> CalibrationRows:
    """Rows and the answers of three rungs. more: further outputs of the first."""
    x, y = drawn(np.random.default_rng(seed), n)
    value = (x @ WEIGHTS + BASE).astype(np.float32)
    answers: dict[str, dict[str, Array]] = {f"rung{i}": {"value": value[:, None]} for i in range(3)}
    answers["rung0"] |= more
    found = CalibrationRows.classified({"x": x}, np.zeros(n, np.int64), answers, "rung0", lambda _: {})
    return replace(found, truth=y)


def folds(**more: Any) -> dict[str, CalibrationRows]:
    return {name: rows(n, seed, **more) for seed, (name, n) in enumerate(FOLDS.items())}


FOLDS = {"fit": 500, "tail": 300, "cut": 400, "risk": 300}


def test_each_rung_with_a_check_gets_intervals_of_its_own_promise(tmp_path: Path) -> None:
    told: list[str] = []
    found = fit_intervals(deployment(tmp_path, CHECKS), folds(), told.append)
    assert list(found) == ["rung0", "rung2"]
    assert [one.rung for one in found.values()] == ["rung0", "rung2"]
    assert found["rung0"].interval.miscoverage < 0.1, "a nominal rate that the test will pass"
    assert found["rung0"].interval.q > found["rung2"].interval.q
    assert told == ["fitting the intervals of rung0", "fitting the intervals of rung2"]


def test_the_difficulty_is_fitted_on_one_fold_and_q_on_two_others(tmp_path: Path) -> None:
    one = deployment(tmp_path, [interval()])
    known, other = folds(), folds()
    other["risk"] = rows(300, seed=9)
    assert (
        fit_intervals(one, known, print)["rung0"].interval.q
        == fit_intervals(one, other, print)["rung0"].interval.q
    )
    for fold in ("tail", "cut"):
        other = folds() | {fold: rows(FOLDS[fold], seed=9)}
        assert (
            fit_intervals(one, other, print)["rung0"].interval.q
            != fit_intervals(one, known, print)["rung0"].interval.q
        )
    difficulty = fit_intervals(one, known, print)["rung0"].interval.difficulty
    assert isinstance(difficulty, Neighbours)
    assert difficulty.residuals.shape == (500,)


def test_without_a_check_nothing_is_fitted_and_rows_stay_as_they_are(tmp_path: Path) -> None:
    found = fit_intervals(deployment(tmp_path, [None]), folds(), print)
    assert found == {}
    known = rows(3)
    assert with_bounds(known, found) is known


def test_answers_of_checked_rungs_have_bounds_and_the_others_stay(tmp_path: Path) -> None:
    found = fit_intervals(deployment(tmp_path, CHECKS), folds(), print)
    known = rows(200, seed=5)
    bounded = with_bounds(known, found)
    assert set(bounded.answers["rung0"]) == {"value", "lower", "upper"}
    assert bounded.answers["rung1"] == known.answers["rung1"]
    assert bounded.truth is known.truth
    narrow, wide = (
        bounded.answers[name]["upper"] - bounded.answers[name]["lower"] for name in ("rung2", "rung0")
    )
    assert (narrow < wide).all()
    part = with_bounds(known.take(np.array([7, 3])), found)
    for name in ("lower", "upper"):
        assert np.array_equal(part.answers["rung0"][name], bounded.answers["rung0"][name][[7, 3]])


def test_bounds_of_the_model_itself_are_where_its_intervals_begin(tmp_path: Path) -> None:
    known = {
        name: replace(
            part,
            answers={
                "rung0": dict(part.answers["rung0"])
                | {"lower": part.answers["rung0"]["value"] - 1, "upper": part.answers["rung0"]["value"] + 3}
            },
        )
        for name, part in folds().items()
    }
    found = fit_intervals(deployment(tmp_path, [interval()]), known, print)["rung0"].interval
    assert found.quantiles
    assert isinstance(found.difficulty, Constant)
    answer = with_bounds(
        known["risk"], fit_intervals(deployment(tmp_path, [interval()]), known, print)
    ).answers["rung0"]
    middle = (answer["lower"] + answer["upper"]) / 2 - answer["value"]
    assert np.allclose(middle, 1, atol=1e-4), "both ends are moved by the same amount"


def test_one_bound_alone_is_refused_with_the_line_of_the_check(tmp_path: Path) -> None:
    known = folds()
    known = {
        name: replace(
            part, answers={"rung0": dict(part.answers["rung0"]) | {"lower": part.answers["rung0"]["value"]}}
        )
        for name, part in known.items()
    }
    with pytest.raises(PolicyError) as caught:
        fit_intervals(deployment(tmp_path, [interval()]), known, print)
    (problem,) = caught.value.problems
    assert problem.field == "rungs[0].checks[0].selective_error"
    assert "selective_error" in (tmp_path / "gateway.yaml").read_text().splitlines()[problem.line - 1]
    assert problem.what == (
        "cannot be certified: interval: the model gives one of lower and upper; give both or neither"
    )


def test_the_second_rungs_refusal_names_the_second_rungs_line(tmp_path: Path) -> None:
    known = folds()
    for fold in ("tail", "cut"):
        known[fold] = rows(0)
    with pytest.raises(PolicyError) as caught:
        fit_intervals(deployment(tmp_path, [None, interval()]), known, print)
    assert caught.value.problems[0].field == "rungs[1].checks[0].selective_error"
