"""Models as their exporters and packages leave them: guarded and served with four commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.models.story import Reply, ask, caller, first_rows, gateway, inputs_of, own_answers
from tests.support.deployments import be_patient
from tests.support.exporters import exported
from tests.support.served import serving

pytestmark = pytest.mark.stock

ASKED = 80
WITHHELD = 422
CAUGHT = 0.9
"""Of rows with an outlier in one column, so many must be withheld."""


@dataclass(frozen=True)
class Case:
    """One model.

    answer: the output that the gateway exposes, and the name that the model gives it. served: the least share
    of good rows that is answered by the model. said: what `check` must say of promises that cannot be made.
    """

    name: str
    answer: tuple[str, str]
    task: str = "classification"
    served: float = 0.7
    said: str = ""


CASES = [
    Case("logistic_regression", ("probabilities", "output_probability")),
    Case("forest_columns", ("probabilities", "output_probability")),
    Case("lightgbm", ("probabilities", "probabilities"), served=0.5),
    Case("xgboost", ("probabilities", "probabilities")),
    Case("regressor", ("value", "variable"), task="regression"),
    Case("magika", ("probabilities", "target_label")),
    Case("orientation", ("probabilities", "save_infer_model/scale_0.tmp_1")),
    Case("text_classifier", ("probabilities", "output_probability"), served=0.5),
    Case("label_only", ("label", "label"), said="primary"),
    Case("fixed_batch", ("probabilities", "probabilities")),
    Case("detector", ("sigmoid_0.tmp_0", "sigmoid_0.tmp_0"), task="opaque", said="primary"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_model_as_it_was_exported_is_guarded_and_served(
    case: Case, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    made, folder = exported(case.name), tmp_path / case.name
    model, rows = made / "model.onnx", next(made.glob("rows.*"))

    begun = gateway("init", folder, "--model", model, "--data", rows)
    assert begun.code == 0, begun.text
    assert f"gateway serve {folder}" in begun.text
    be_patient(folder)
    calibrated = gateway("calibrate", folder, "--data", rows)
    assert calibrated.code == 0, calibrated.text
    checked = gateway("check", folder)
    assert checked.code == 0, checked.text
    good = first_rows(made / "asked.npz", ASKED, tmp_path / "good.npz")
    key = caller(folder)
    with serving(folder, "--local") as served:
        answers = ask(served, case.name, key, good)
        odd = ask(served, case.name, key, made / "absurd.npz")

    with subtests.test("the task is written in the policy"):
        assert yaml.safe_load((folder / "gateway.yaml").read_text())["task"] == case.task
    with subtests.test("check says which promise vanishes"):
        assert case.said in checked.text
    with subtests.test("good rows get the model's own answer, to the bit"):
        holds_to_the_bit(case, answers, model, good)
    with subtests.test("rows that are absurd are withheld, or check names the input that no guard reads"):
        holds_back(odd, made / "absurd.npz", checked.text)


def holds_to_the_bit(case: Case, answers: list[Reply], model: Path, rows: Path) -> None:
    ours, own = case.answer
    expected = own_answers(model, rows, own)
    served = [i for i, reply in enumerate(answers) if reply.status == 200]
    assert len(served) >= case.served * len(answers), {reply.message for reply in answers}
    for i in served:
        given = answers[i].tensor(ours)
        assert np.array_equal(given.astype(expected[i].dtype).ravel(), expected[i].ravel()), (i, given)


def holds_back(odd: list[Reply], rows: Path, checked: str) -> None:
    """For each kind of absurd rows by itself, so that no column hides behind another."""
    with np.load(rows) as held:
        what = held["what"]
    statuses = np.array([reply.status for reply in odd])
    assert set(statuses) <= {200, WITHHELD}
    passed = {str(one): float(np.mean(statuses[what == one] == 200)) for one in np.unique(what)}
    named = [f"unguarded: {name}" for name in inputs_of(rows)]
    missed = {one: share for one, share in passed.items() if share > 1 - CAUGHT}
    assert not missed or any(name in checked for name in named), missed
