"""Kinds of models with open axes, or that refuse rows of zeros: `serve` does what `check` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from tests.support.kinds import (
    F32,
    I64,
    TEXT,
    begun,
    floats,
    info,
    initialised,
    labelled,
    model,
    nearest,
    node,
    outcomes,
    ready_alike,
    sent,
)
from tests.support.mixed_models import UNSEEN, of
from tests.support.typed import Sent
from tests.support.typed_models import Array

REFUSES_ZEROS = {
    "text": (
        TEXT,
        np.array(["Bergen", "Ωmega"]),
        node(
            "OneHotEncoder", ["code"], ["hot"], domain="ai.onnx.ml", cats_strings=["Bergen", "Ωmega"], zeros=0
        ),
    ),
    "integers": (
        I64,
        np.array([4, 7]),
        node("OneHotEncoder", ["code"], ["hot"], domain="ai.onnx.ml", cats_int64s=[4, 7], zeros=0),
    ),
}


@pytest.mark.parametrize("kind", REFUSES_ZEROS)
def test_a_model_that_refuses_rows_of_zeros_is_tried_with_real_rows(tmp_path: Path, kind: str) -> None:
    element, values, encoder = REFUSES_ZEROS[kind]
    nodes = [
        encoder,
        node("Reshape", ["hot", "sizes"], ["flat"]),
        node("MatMul", ["flat", "w"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    inputs, outputs = [info("code", element, ["n", 1])], [info("probabilities", F32, ["n", 2])]
    content = model(nodes, inputs, outputs, sizes=[-1, 2], w=6 * np.eye(2, dtype=np.float32))
    y = np.random.default_rng(0).integers(0, 2, 1200)
    folder = begun(tmp_path, content, {"code": values[y], "y": y, "group": np.arange(1200)})
    datatypes = {"code": "BYTES" if element == TEXT else "INT64"}
    good = of(0, {"code": values[y]}, datatypes)
    strange = Sent("BYTES", UNSEEN, False) if element == TEXT else sent("INT64", [[0]])
    assert outcomes(folder, good, {"code": strange}) == [(200, "ok"), (400, "invalid")]


def pooled(shape: Any) -> bytes:
    """A picture of two channels and of any size; its class is the channel that is brighter."""
    nodes = [
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Mul", ["flat", "k"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    return model(nodes, [info("image", F32, shape)], [info("probabilities", F32, ["n", 2])], k=floats([200]))


def pictures(height: int, width: int) -> dict[str, Array]:
    image = np.random.default_rng(height).random((1000, 2, height, width)).astype(np.float32)
    return {"image": image, "y": image.mean((2, 3)).argmax(1)}


OPEN = {
    "any width": (
        model(
            [
                node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
                node("Mul", ["m", "k"], ["z"]),
                node("Sigmoid", ["z"], ["probabilities"]),
            ],
            [info("x", F32, ["n", "width"])],
            [info("probabilities", F32, ["n", 1])],
            k=floats([90]),
        ),
        "x",
        (9,),
        (7,),
    ),
    "fixed weights": (nearest(2, 11, shape=["n", "width"]), "x", (11,), (10,)),
    "nothing declared": (nearest(2, 6, shape=[None, None]), "x", (6,), (7,)),
    "open height and width": (pooled(["n", 2, "h", "w"]), "image", (2, 8, 5), (2, 5, 8)),
    "open width": (pooled(["n", 2, 6, "w"]), "image", (2, 6, 9), (2, 6, 8)),
    "trees": (
        model(
            [
                node(
                    "TreeEnsembleClassifier",
                    ["x"],
                    ["label", "probabilities"],
                    domain="ai.onnx.ml",
                    nodes_treeids=[0] * 3,
                    nodes_nodeids=[0, 1, 2],
                    nodes_featureids=[12, 0, 0],
                    nodes_values=[0.0] * 3,
                    nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
                    nodes_truenodeids=[1, 0, 0],
                    nodes_falsenodeids=[2, 0, 0],
                    nodes_missing_value_tracks_true=[0] * 3,
                    class_treeids=[0, 0],
                    class_nodeids=[1, 2],
                    class_ids=[0, 0],
                    class_weights=[-3.0, 3.0],
                    classlabels_int64s=[0, 1],
                    post_transform="LOGISTIC",
                )
            ],
            [info("x", F32, [None, None])],
            [info("label", I64, [None]), info("probabilities", F32, [None, 2])],
        ),
        "x",
        (13,),
        (12,),
    ),
}


def rows_of(case: str) -> dict[str, Array]:
    _, name, sizes, _ = OPEN[case]
    if len(sizes) == 3:
        return pictures(*sizes[1:])
    x, y = labelled(1200, 2, *sizes)
    if case == "any width":
        x = np.random.default_rng(0).normal(0, 1, x.shape).astype(np.float32)
        y = (x.mean(1) > 0).astype(np.int64)
    elif case == "trees":
        y = (x[:, 12] > 0).astype(np.int64)
    return {name: x, "y": y}


@pytest.mark.parametrize("case", OPEN)
def test_open_axes_have_the_sizes_of_the_rows_and_check_says_what_serve_does(
    tmp_path: Path, case: str
) -> None:
    content, name, sizes, others = OPEN[case]
    held = rows_of(case)
    folder = initialised(tmp_path, content, held)
    assert not ready_alike(folder)
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    assert ready_alike(folder)
    good = {name: Sent("FP32", held[name][:2], False)}
    strange = {name: Sent("FP32", np.zeros((2, *others), np.float32), False)}
    ends = outcomes(folder, good, strange)
    assert ends[0] in [(200, "ok"), (400, "invalid")]
    assert ends[1] == (400, "invalid")
    assert yaml.safe_load((folder / "gateway.yaml").read_text())["inputs"][name]["shape"] == list(sizes)


@pytest.mark.parametrize("case", OPEN)
def test_sizes_that_the_rows_do_not_have_are_refused_before_anything_is_served(
    tmp_path: Path, case: str
) -> None:
    content, name, sizes, others = OPEN[case]
    folder = initialised(tmp_path, content, rows_of(case))
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text().replace(str(list(sizes)), str(list(others))))
    with pytest.raises(Problems, match=rf"{name}: has shape|{name}\.shape"):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    assert not ready_alike(folder)
