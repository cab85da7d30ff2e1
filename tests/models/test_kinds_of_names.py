"""Kinds of models by the names of their inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from fallbacks.predictor import ModelTensor
from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.scaffold.roles import guess_roles
from guards import arrays
from tests.support.deployments import edit
from tests.support.kinds import (
    ODD,
    answered,
    begun,
    initialised,
    labelled,
    nearest,
    outcomes,
    rows,
    sent,
)
from tests.support.typed import Sent

NAMES = [
    ["group", "x", "t", "before"],
    ["expected", "expected.y", "names", "labels"],
    ["age (years)", "a.b/c", "größe 🙂", "x:0"],
    ["a'b", 'c"d', "e{f}", "g, h"],
    [" ", "-", "#x", "? !"],
    ["probabilities", "label", "value", "features"],
    ["no", "null", "1e3", "0"],
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_inputs_may_have_any_names(tmp_path: Path, names: list[str]) -> None:
    x, y = labelled(1200)
    held = {name: x[:, i] for i, name in enumerate(names)}
    folder = begun(tmp_path, nearest(columns=names, p="out_prob"), held | {"y": y})
    good = {name: Sent("FP32", x[:1, i : i + 1], False) for i, name in enumerate(names)}
    odd = [{**good, name: sent("FP32", [[8e5]])} for name in names]
    assert outcomes(folder, good, *odd) == [(200, "ok")] + [(422, "abstained")] * 4


def test_an_input_called_y_is_given_another_name_in_the_policy(tmp_path: Path) -> None:
    x, y = labelled(1200)
    names = ["y", "b", "c", "d"]
    folder = initialised(tmp_path, nearest(columns=names), None)
    arrays.save(tmp_path / "rows.npz", {name: x[:, i] for i, name in enumerate(names)})
    with pytest.raises(Problems, match=r"y: is an input of the model.*`names: \{OTHER: y\}`"):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text().replace("primary.onnx}", "primary.onnx, names: {height: y}}"))
    held = {"height": x[:, 0], "b": x[:, 1], "c": x[:, 2], "d": x[:, 3], "y": y}
    arrays.save(tmp_path / "rows.npz", held)
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    good = {name: Sent("FP32", held[name][:1, None], False) for name in ("height", "b", "c", "d")}
    assert outcomes(folder, good)[0][0] == 200


@pytest.mark.parametrize(
    "name", ["save_infer_model/out.tmp_0", "StatefulPartitionedCall:1", "scores", "vraisemblance (%)"]
)
def test_an_output_of_any_name_is_found_written_and_served_by_its_role(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path, nearest(p=name), rows(2))
    (rung,) = yaml.safe_load((folder / "gateway.yaml").read_text())["rungs"]
    assert rung["model"]["names"] == {"probabilities": name}
    assert answered(folder, {"x": ODD}, label=1) == {"probabilities": [0, 1]}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("", "which has scores; if one of them is that, say so on its model: names: {probabilities: OUTPUT}"),
        ("probabilities: score", "(nearest: 'scores'); its inputs: 'x'; its outputs: 'scores'"),
        ("probabilites: scores", "did you mean 'probabilites'?"),
        ("probabilities: scores, logits: scores", "gives 'scores' two names, 'probabilities', 'logits'"),
    ],
)
def test_a_name_that_is_missing_or_wrong_is_told_with_the_outputs_there_are(
    tmp_path: Path, names: str, says: str
) -> None:
    folder = initialised(tmp_path, nearest(p="scores"), rows(2))
    edit(folder, (", names: {probabilities: scores}", f", names: {{{names}}}" if names else ""))
    with pytest.raises(Problems) as refused:
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    assert says in str(refused.value)


def test_an_output_that_is_called_by_a_role_has_it_before_any_that_looks_like_it() -> None:
    f32 = np.dtype(np.float32)
    score, p = ModelTensor("score", f32, (None, 1)), ModelTensor("probabilities", f32, (None, 2))
    answer = {"score": np.full((2, 1), 0.5, np.float32), "probabilities": np.full((2, 2), 0.5, np.float32)}
    guess = guess_roles([score, p], None, answer, np.array([0, 1]))
    assert guess.names == {"probabilities": "probabilities"}


def test_an_output_called_value_that_has_a_column_a_class_is_no_number(tmp_path: Path) -> None:
    folder = begun(tmp_path, nearest(p="value"), rows(2))
    assert yaml.safe_load((folder / "gateway.yaml").read_text())["task"] == "classification"
    assert answered(folder, {"x": ODD}, label=0) == {"probabilities": [1, 0]}
