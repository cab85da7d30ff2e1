"""Models as their exporters and packages leave them: guarded and served with four commands."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.models.story import Reply, ask, caller, first_rows, gateway, inputs_of, own_answers
from tests.support.deployments import be_patient
from tests.support.exporters import exported
from tests.support.mlserver import MODEL, mlserver
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
    of good rows that gets the answer of the model. begun: what `init` must say of how it runs; checked: what
    `check` must say of promises that cannot be made.
    """

    name: str
    answer: tuple[str, str]
    task: str = "classification"
    served: float = 0.75
    begun: str = ""
    checked: str = ""


CASES = [
    Case("logistic_regression", ("probabilities", "output_probability")),
    Case("forest_columns", ("probabilities", "output_probability")),
    Case("lightgbm", ("probabilities", "probabilities")),
    Case("xgboost", ("probabilities", "probabilities")),
    Case("regressor", ("value", "variable"), task="regression"),
    Case("magika", ("probabilities", "target_label")),
    Case("orientation", ("probabilities", "save_infer_model/scale_0.tmp_1")),
    Case("text_classifier", ("probabilities", "output_probability")),
    Case("label_only", ("label", "label"), checked="Of what primary answers, nothing"),
    Case("fixed_batch", ("probabilities", "probabilities"), begun="row by row"),
    Case("detector", ("sigmoid_0.tmp_0", "sigmoid_0.tmp_0"), task="opaque", checked="Of errors, nothing"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_model_as_exported_is_guarded(case: Case, tmp_path: Path, subtests: pytest.Subtests) -> None:
    model = exported(case.name) / "model.onnx"

    inspected = gateway("inspect", model)

    assert inspected.code == 0, inspected.text
    with subtests.test("inspect names the task, every input, and the answer"):
        named = [f"task: {case.task}", *inputs_of(model.parent / "asked.npz"), case.answer[1]]
        assert [name for name in named if name not in inspected.text] == []
    guarded_and_served(case, ("--model", str(model)), tmp_path / "mine", subtests)


def test_a_server_that_gives_labels_alone_is_guarded(tmp_path: Path, subtests: pytest.Subtests) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(exported("label_only") / "model.onnx", tmp_path / "model" / "primary.onnx")
    case = Case("label_only", ("label", "label"), checked="Of what primary answers, nothing")

    with mlserver(tmp_path / "model", tmp_path / "work") as upstream:
        url = f"{upstream.http}/v2/models/{MODEL}"
        guarded_and_served(case, ("--upstream", url), tmp_path / "upstream", subtests)


def test_a_policy_may_be_written_before_there_are_rows(tmp_path: Path) -> None:
    made, folder = exported("orientation"), tmp_path / "mine"

    begun = gateway("init", folder, "--model", made / "model.onnx")
    be_patient(folder)
    unready = gateway("check", folder)
    calibrated = gateway("calibrate", folder, "--data", made / "rows.npz")
    checked = gateway("check", folder)

    assert (begun.code, unready.code, calibrated.code, checked.code) == (0, 2, 0, 0), calibrated.text
    assert f"gateway calibrate {folder} --data" in begun.text
    assert "calibrate" in unready.text


def guarded_and_served(case: Case, source: tuple[str, str], folder: Path, subtests: pytest.Subtests) -> None:
    """`init`, `calibrate`, `check` and `serve` as a user types them, then tritonclient."""
    made = exported(case.name)
    rows = next(made.glob("rows.*"))
    begun = gateway("init", folder, *source, "--data", rows)
    assert begun.code == 0, begun.text
    be_patient(folder)
    calibrated = gateway("calibrate", folder, "--data", rows)
    assert calibrated.code == 0, calibrated.text
    checked = gateway("check", folder)
    assert checked.code == 0, checked.text
    good = first_rows(made / "asked.npz", ASKED, folder.parent / "good.npz")
    key = caller(folder)
    with serving(folder, "--local") as served:
        answers = ask(served, folder.name, key, good)
        odd = ask(served, folder.name, key, made / "absurd.npz")

    with subtests.test("init names the task, and the next command"):
        assert yaml.safe_load((folder / "gateway.yaml").read_text())["task"] == case.task
        assert case.begun in begun.text
        assert f"gateway serve {folder}" in begun.text
    with subtests.test("check says which promise vanishes"):
        assert case.checked in checked.text
    with subtests.test("good rows get the model's own answer, to the bit"):
        holds_to_the_bit(case, answers, made / "model.onnx", good)
    with subtests.test("absurd rows are withheld, or check names the input that no guard reads"):
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
    named = [f"Of the input {name}, nothing" for name in inputs_of(rows)]
    missed = {one: share for one, share in passed.items() if share > 1 - CAUGHT}
    assert not missed or any(name in checked for name in named), missed
