"""A row's answer depends on that row alone: random models are refused, and rows that mix are run apart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallbacks.onnx import OnnxModel
from gateway.calibration.calibrate import calibrate
from gateway.cli.check import checked
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.row_independence import separate_rows
from tests.support.kinds import F32, I64, info, initialised, model, node
from tests.support.typed_models import Array

RNG = np.random.default_rng(7)
X = RNG.normal(0, 3, (1500, 8)).astype(np.float32)
CLASSES = RNG.normal(0, 3, (8, 2)).astype(np.float32)
ONES, ZEROS = np.ones(8, np.float32), np.zeros(8, np.float32)
Y = (X @ CLASSES).argmax(1)
P = [info("probabilities", F32, ["n", 2])]


def classifier(*nodes: Any, of: str = "x", n: int | str = "n", axis: int = 1, **weights: Any) -> bytes:
    """Probabilities of what the nodes make of `x`; without any, of `x` itself."""
    last = [node("MatMul", [of, "classes"], ["z"]), node("Softmax", ["z"], ["probabilities"], axis=axis)]
    inputs, outputs = [info("x", F32, [n, 8])], [info("probabilities", F32, [n, 2])]
    return model([*nodes, *last], inputs, outputs, classes=CLASSES, **weights)


def normalised(n: int | str = "n") -> bytes:
    """As exported while it was training: it changes its own mean and variance at every run."""
    outputs = ["h", "m", "v"]
    norm = node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], outputs, training_mode=1)
    return classifier(norm, of="h", n=n, scale=ONES, shift=ZEROS, mean=ZEROS, var=ONES)


def less_the_mean(n: int | str = "n") -> bytes:
    return classifier(
        node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        node("Sub", ["x", "mean"], ["h"]),
        of="h",
        n=n,
    )


def among_the_batch() -> bytes:
    """Softmax over the rows, in the place of the classes."""
    return classifier(axis=0)


def quantised() -> bytes:
    """One scale for the whole batch, from its largest value."""
    return classifier(
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "point"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["h"]),
        of="h",
    )


def noisy() -> bytes:
    noise = node("RandomNormalLike", ["x"], ["noise"], scale=1.0)
    return classifier(noise, node("Add", ["x", "noise"], ["h"]), of="h")


def dropping() -> bytes:
    dropout = node("Dropout", ["x", "half", "yes"], ["h"])
    return classifier(dropout, of="h", half=np.array(0.5, np.float32), yes=np.array(True))


def drawn() -> bytes:
    nodes = [
        node("MatMul", ["x", "classes"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
        node("Log", ["probabilities"], ["logged"]),
        node("Multinomial", ["logged"], ["class"], dtype=I64, sample_size=4),
    ]
    outputs = [*P, info("class", I64, ["n", 4])]
    return model(nodes, [info("x", F32, ["n", 8])], outputs, classes=CLASSES / 9)


def loaded(folder: Path, content: bytes) -> tuple[Deployment, dict[str, Any]]:
    deployment = Deployment.read(initialised(folder, content, None))
    return deployment, load_models(deployment, {})


def first_rows(n: int = 32) -> Mapping[str, Array]:
    return {"x": X[:n]}


@pytest.mark.parametrize(
    ("make", "operator"),
    [
        (noisy, "RandomNormalLike"),
        (dropping, "Dropout"),
        (drawn, "Multinomial"),
        (normalised, "BatchNormalization"),
    ],
)
def test_a_model_that_answers_one_row_differently_each_time_is_refused_by_operator(
    tmp_path: Path, make: Any, operator: str
) -> None:
    folder = initialised(tmp_path, classifier(), {"x": X, "y": Y})
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    (folder / "primary.onnx").write_bytes(make())
    with pytest.raises(PolicyError, match=operator):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    with pytest.raises(PolicyError, match=operator):
        checked(folder)


@pytest.mark.parametrize(
    "content",
    [less_the_mean(), among_the_batch(), quantised(), less_the_mean(4)],
    ids=["mean", "softmax", "quantised", "mean of four"],
)
def test_rows_that_change_each_others_answers_are_run_apart_with_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    deployment, models = loaded(tmp_path, content)
    with caplog.at_level(logging.WARNING):
        separate_rows(deployment, models, first_rows())
    assert "change each other's answers" in caplog.text
    one = models["primary"]
    alone = [one.run({"x": X[i : i + 1]})["probabilities"] for i in range(6)]
    assert (one.run({"x": X[:6]})["probabilities"] == np.concatenate(alone)).all()
    one.close()


@pytest.mark.parametrize("n", ["n", 1, 4])
def test_a_model_whose_rows_are_their_own_shares_its_runs_among_them(
    tmp_path: Path, n: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    deployment, models = loaded(tmp_path, classifier(n=n))
    separate_rows(deployment, models, first_rows())
    one = models["primary"]
    assert isinstance(one, OnnxModel)
    assert one.fixed_rows == (None if n == "n" else n)
    assert not caplog.records
    one.close()


def test_a_label_between_two_equal_scores_may_change_by_rounding_alone(tmp_path: Path) -> None:
    """Wide rows, of which a batch sums in another order than one row."""
    wide = RNG.normal(0, 1, (1500, 512)).astype(np.float32)
    weights = RNG.normal(0, 1, (512, 1)).astype(np.float32) @ np.ones((1, 2), np.float32)
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
        node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [*P, info("label", I64, ["n"]), info("z", F32, ["n", 2])]
    content = model(nodes, [info("x", F32, ["n", 512])], outputs, w=weights)
    deployment, models = loaded(tmp_path, content)
    separate_rows(deployment, models, {"x": wide})
    one = models["primary"]
    assert isinstance(one, OnnxModel) and one.fixed_rows is None
    one.close()


def rows_file(folder: Path, content: bytes) -> Path:
    return initialised(folder, content, {"x": X, "y": Y})


def test_what_is_calibrated_with_rows_apart_is_served_with_rows_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = rows_file(tmp_path, quantised())
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    caplog.clear()
    checked(folder)
    assert "run one at a time" in caplog.text
