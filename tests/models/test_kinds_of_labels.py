"""Kinds of labels and of probabilities: those that fit are taken, others are refused with rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import NodeProto

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from tests.support.kinds import (
    F32,
    ODD,
    answered,
    begun,
    floats,
    info,
    initialised,
    model,
    nearest,
    node,
    rows,
)
from tests.support.typed_models import Array


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["stay", "churn"], ["stay", "churn"]),
        (["churn", "stay"], ["churn", "stay"]),
        (["010", "007"], ["010", "007"]),
        (["True", "False"], ["True", "False"]),
        ([1, 2], ["1", "2"]),
        ([7.0, 3.0], ["7", "3"]),
    ],
    ids=str,
)
def test_classes_that_no_file_names_are_those_of_the_rows_in_the_order_of_the_columns(
    tmp_path: Path, names: list[Any], written: list[str]
) -> None:
    held = rows(2) | {"y": np.array(names)[rows(2)["y"]]}
    folder = begun(tmp_path, nearest(), held)
    assert yaml.safe_load((folder / "gateway.yaml").read_text())["labels"] == written
    assert answered(folder, {"x": ODD}, label=written[0]) == {"probabilities": [1, 0]}


@pytest.mark.parametrize("y", [np.arange(1500) % 2 == 1, (np.arange(1500) % 2).astype(float)])
def test_labels_that_are_columns_already_need_no_names(tmp_path: Path, y: Array) -> None:
    held = rows(2)
    order = np.argsort(held["y"], kind="stable")
    x = held["x"][order][np.argsort(np.argsort(y, kind="stable"), kind="stable")]
    folder = initialised(tmp_path, nearest(), {"x": x, "y": y})
    assert "labels" not in yaml.safe_load((folder / "gateway.yaml").read_text())


@pytest.mark.parametrize(
    ("labels", "y", "says"),
    [
        (["b", "a", "c"], ["a", "b", "c"], "are 'a' in y; labels stand in the order of the columns"),
        (["a", "c", "b"], ["a", "b", "c"], "likely ['a', 'b', 'c']"),
        (["a", "b", "d"], ["a", "b", "c"], "y: holds 'c', first in row"),
        (["alpha", "beta", "gamma"], ["alpha", "beta ", "gamma"], "did you mean 'beta'?"),
        ([], [1, 2, 3], "name them in the order of its columns: `labels: ['1', '2', '3']`"),
        ([], [0, 1, 3], "y: holds labels from 0 to 3; the model has the classes 0 to 2"),
        ([], ["a", "b", "c"], "write `labels: [...]` in the order of the 3 columns of probabilities"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused_with_those_that_do(
    tmp_path: Path, labels: list[str], y: list[Any], says: str
) -> None:
    folder = initialised(tmp_path, nearest(3), rows(3))
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text() + (f"labels: {labels}\n" if labels else ""))
    np.savez(tmp_path / "named.npz", x=rows(3)["x"], y=np.array(y)[rows(3)["y"]])
    with pytest.raises(Problems) as refused:
        calibrate(Deployment.read(folder), tmp_path / "named.npz")
    assert says in str(refused.value)
    assert not (folder / "certificate.json").exists()


@pytest.mark.parametrize("labels", ["[a, a]", "['1', '1']", "[déjà, 'déjà']"])
def test_labels_that_a_reviewer_could_not_tell_apart_are_refused(tmp_path: Path, labels: str) -> None:
    folder = begun(tmp_path, nearest(), rows(2))
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text() + f"labels: {labels}\n")
    with pytest.raises(Problems, match=r"labels\[1\]: '\w+' is there twice"):
        Deployment.read(folder)


def scaled(op: str, *more: NodeProto, **weights: Any) -> bytes:
    """Something else called probabilities, of the scores of two classes."""
    nodes = [node("Gemm", ["x", "w", "b"], ["scores"]), node(op, ["scores"], ["first"]), *more]
    x, given = [info("x", F32, ["n", 4])], [info("probabilities", F32, ["n", 2])]
    w = np.array([[1, -1], [1, -1], [0.5, 0], [0, 0.5]], np.float32)
    return model(nodes, x, given, w=w, b=np.zeros(2, np.float32), **weights)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (scaled("Identity", node("Identity", ["first"], ["probabilities"])), "sum"),
        (scaled("Sigmoid", node("Identity", ["first"], ["probabilities"])), "sum"),
        (scaled("LogSoftmax", node("Identity", ["first"], ["probabilities"])), "[-"),
        (
            scaled("Softmax", node("Mul", ["first", "hundred"], ["probabilities"]), hundred=floats([100])),
            "sum 100",
        ),
        (
            scaled(
                "Softmax",
                node("Mul", ["first", "two"], ["double"]),
                node("Sub", ["double", "half"], ["probabilities"]),
                two=floats([2]),
                half=floats([0.5]),
            ),
            "sum 1)",
        ),
    ],
    ids=["decision scores", "sigmoids of two labels", "logarithms", "per cent", "negative, of sum 1"],
)
def test_what_is_no_distribution_is_refused_with_rows(tmp_path: Path, content: bytes, shown: str) -> None:
    folder = initialised(tmp_path, content, rows(2))
    with pytest.raises(Problems, match=r"'probabilities' that are none \(row \d+: \[") as refused:
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    assert shown in str(refused.value)
    assert "must be from 0 to 1 and sum to 1" in str(refused.value)


def test_shares_of_several_labels_are_no_scores_of_classes(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Sigmoid", ["z"], ["tags"])]
    w = floats([[1, -1, 0], [0, 1, -1], [1, 0, 1], [0, 0, 1]])
    content = model(nodes, [info("x", F32, ["n", 4])], [info("tags", F32, ["n", 3])], w=w)
    folder = begun(tmp_path, content, rows(3))
    policy = yaml.safe_load((folder / "gateway.yaml").read_text())
    assert (policy["task"], policy["expose"]) == ("opaque", ["tags"])


@pytest.mark.parametrize("first", [True, False])
def test_of_two_distributions_that_of_as_many_classes_as_the_rows_have_is_the_answer(
    tmp_path: Path, first: bool
) -> None:
    other = node("Softmax", ["x"], ["attention"], axis=1)
    outputs = [info("p", F32, ["n", 2]), info("attention", F32, ["n", 4])]
    content = nearest(p="p", extra=[other], outputs=outputs if first else outputs[::-1])
    folder = begun(tmp_path, content, rows(2))
    (rung,) = yaml.safe_load((folder / "gateway.yaml").read_text())["rungs"]
    assert rung["model"]["names"]["probabilities"] == "p"


def test_what_only_a_policy_can_say_is_told_with_how_to_get_one(tmp_path: Path) -> None:
    held = rows(3)
    some = held["y"] < 2
    named = {"x": held["x"][some], "y": np.array(["a", "b", "c"])[held["y"][some]]}
    with pytest.raises(Problems, match=r"rows\.npz: y: holds text \(a, b\).*`gateway init` without --data"):
        initialised(tmp_path, nearest(3), named)
    folder = initialised(tmp_path, nearest(3), None)
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text() + "labels: [a, b, c]\n")
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    assert answered(folder, {"x": ODD}, label="c") == {"probabilities": [0, 0, 1]}
