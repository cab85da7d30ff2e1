"""Kinds of models by their answers: each is begun with `gateway init`, served, and answered by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import NodeProto, TensorProto, ValueInfoProto

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from gateway.scaffold.roles import guess_roles
from tests.support.deployments import edit, run
from tests.support.kinds import (
    F32,
    F64,
    I64,
    TEXT,
    begun,
    deferred_to,
    info,
    initialised,
    labelled,
    model,
    nearest,
    node,
    outputs_at,
    said,
    sent,
)
from tests.support.typed import typed
from tests.support.typed_models import Array

ODD = sent("FP32", [[9e5, -9e5, 9e5, 9e5]])
INDEX = node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0)
BY_INDEX = node("Gather", ["values", "index"], ["label"], axis=0)
BY_NAME = node(
    "LabelEncoder",
    ["index"],
    ["label"],
    domain="ai.onnx.ml",
    keys_int64s=[0, 1, 2],
    values_strings=["no", "peut-être", "ja 🙂"],
)
FLAT = node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)


def rows(k: int, n: int = 1500) -> dict[str, Array]:
    x, y = labelled(n, k)
    return {"x": x, "y": y}


def answered(folder: Path, inputs: Mapping[str, Any], **answer: Any) -> dict[str, Any]:
    """What the caller of a deferred row gets once a person has answered."""

    async def main() -> dict[str, Any]:
        async with typed(folder) as to:
            url, claim = await deferred_to(to, inputs)
            assert await said(to, claim, **answer) == 200
            return await outputs_at(to, url)

    return run(main)


@pytest.mark.parametrize(
    ("label", "probabilities"),
    [([1], ["n", 3]), ([1], [1, 3]), (["batch"], [1, 3]), (None, None)],
    ids=["label fixed", "both fixed", "probabilities fixed", "nothing declared"],
)
def test_the_batch_that_an_output_declares_is_no_matter_where_inputs_leave_it_open(
    tmp_path: Path, label: Any, probabilities: Any
) -> None:
    outputs = [info("label", I64, label), info("probabilities", F32, probabilities)]
    held = rows(3)
    folder = begun(tmp_path, nearest(3, extra=[FLAT], outputs=outputs), held)

    async def main() -> None:
        async with typed(folder) as to:
            reply = await to.ask({"x": sent("FP32", held["x"][:7])}, outputs=[{"name": "label"}])
            assert reply.status == 200
            assert [one["shape"] for one in reply.json["outputs"]] == [[7]]

    run(main)


@pytest.mark.parametrize("shape", [["n", "classes"], ["n", None], None], ids=["symbol", "open", "no rank"])
@pytest.mark.parametrize("labels", [[], ["ham", "spam"]])
def test_a_person_chooses_a_class_where_the_file_does_not_say_how_many_there_are(
    tmp_path: Path, shape: Any, labels: list[str]
) -> None:
    content = nearest(outputs=[info("probabilities", F32, shape)])
    held = rows(2) | ({"y": np.array(labels)[rows(2)["y"]]} if labels else {})
    folder = begun(tmp_path, content, held)
    given = answered(folder, {"x": ODD}, label=labels[1] if labels else 1)
    assert given == {"probabilities": [0, 1]}


SCORE = node("ReduceMax", ["probabilities"], ["score"], axes=[1], keepdims=1)
SPREAD = node("ReduceSumSquare", ["x"], ["spread"], axes=[1], keepdims=0)


@pytest.mark.parametrize(
    ("extra", "other"),
    [
        (SCORE, info("score", F32, ["n", 1])),
        (SPREAD, info("spread", F32, ["n"])),
    ],
    ids=lambda one: getattr(one, "op_type", ""),
)
@pytest.mark.parametrize("first", [True, False])
def test_other_outputs_hide_no_class_wherever_they_stand(
    tmp_path: Path, extra: NodeProto, other: ValueInfoProto, first: bool
) -> None:
    p = info("probabilities", F32, ["n", 2])
    content = nearest(extra=[extra], outputs=[other, p] if first else [p, other])
    folder = begun(tmp_path, content, rows(2))
    written = yaml.safe_load((folder / "gateway.yaml").read_text())
    assert written["expose"] == ["probabilities"]
    edit(folder, ("expose: [probabilities]", f"expose: [{other.name}, probabilities]"))
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    given = answered(folder, {"x": ODD}, label=0)
    assert given.pop("probabilities") == [1, 0]
    assert set(given[other.name]) == {None}


@pytest.mark.parametrize(
    ("extra", "element", "shape", "names", "weights"),
    [
        ([INDEX, BY_INDEX], I64, ["n"], [10, 20, 35], {"values": [10, 20, 35]}),
        ([INDEX, BY_INDEX], I64, ["n"], [-1, 0, 1], {"values": [-1, 0, 1]}),
        ([INDEX, BY_INDEX], I64, ["n"], [2**60, 2**60 + 1, 2**60 + 2], {"values": 2**60 + np.arange(3)}),
        ([INDEX, BY_NAME], TEXT, ["n"], ["no", "peut-être", "ja 🙂"], {}),
        (
            [
                INDEX,
                node("Gather", ["values", "index"], ["flat"], axis=0),
                node("Unsqueeze", ["flat", "one"], ["label"]),
            ],
            TensorProto.INT32,
            ["n", 1],
            [1, 2, 3],
            {"values": np.array([1, 2, 3], np.int32), "one": [1]},
        ),
    ],
    ids=["tens", "from -1", "beyond float64", "text", "int32 in columns"],
)
def test_a_persons_answer_is_the_right_label_too(
    tmp_path: Path, extra: Sequence[NodeProto], element: int, shape: Any, names: list[Any], weights: Any
) -> None:
    outputs = [info("label", element, shape), info("probabilities", F32, ["n", 3])]
    held = rows(3) | {"y": np.array(names)[rows(3)["y"]]}
    folder = begun(tmp_path, nearest(3, extra=extra, outputs=outputs, **weights), held)
    given = answered(folder, {"x": ODD}, label=str(names[2]))
    assert given == {"label": [names[2]], "probabilities": [0, 0, 1]}


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


@pytest.mark.parametrize("labels", ["[a, a]", "[a, ' ']", "['', b]"])
def test_labels_that_a_reviewer_could_not_tell_apart_are_refused(tmp_path: Path, labels: str) -> None:
    folder = begun(tmp_path, nearest(), rows(2))
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text() + f"labels: {labels}\n")
    with pytest.raises(Problems, match=r"labels\[[01]\]: ('a' is there twice|is blank)"):
        Deployment.read(folder)


def regressor(element: int, dtype: Any, shape: Any, name: str) -> bytes:
    """The sum of x in another datatype, as [n, 1] or [n]."""
    flat = len(shape) == 1
    nodes = [
        node("Cast", ["x"], ["cast"], to=element),
        node("MatMul", ["cast", "w"], ["column"]),
        node("Reshape", ["column", "sizes"], [name]),
    ]
    sizes = [-1] if flat else [-1, 1]
    outputs = [info(name, element, shape)]
    return model(nodes, [info("x", F32, ["n", 4])], outputs, w=np.ones((4, 1), dtype), sizes=sizes)


@pytest.mark.parametrize(
    ("element", "dtype", "shape", "name"),
    [
        (F32, np.float32, ["n", 1], "variable"),
        (F64, np.float64, ["n", 1], "dense_3/BiasAdd:0"),
        (F64, np.float64, ["n"], "y_hat"),
        (TensorProto.FLOAT16, np.float16, ["n", 1], "output"),
    ],
    ids=["float32", "float64 in a column", "float64", "float16"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_of_a_regressor_a_person_types_a_number_and_the_caller_gets_it(
    tmp_path: Path, element: int, dtype: Any, shape: Any, name: str, whole: bool
) -> None:
    x = labelled(1500)[0]
    y = x.sum(1) + np.random.default_rng(0).normal(0, 1, 1500)
    content = regressor(element, dtype, shape, name)
    folder = begun(tmp_path, content, {"x": x, "y": np.rint(y).astype(int) if whole else y})

    async def main() -> None:
        async with typed(folder) as to:
            url, claim = await deferred_to(to, {"x": sent("FP32", [[900, -900, 900, -800]])})
            assert (claim["form"]["kind"], claim["labels"]) == ("number", [])
            assert await said(to, claim, label=0) == 422
            assert await said(to, claim, value=12.5) == 200
            assert await outputs_at(to, url) == {"value": [12.5], "lower": [12.5], "upper": [12.5]}

    run(main)


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
            scaled(
                "Softmax", node("Mul", ["first", "hundred"], ["probabilities"]), hundred=np.float32([100])
            ),
            "sum 100",
        ),
        (
            scaled(
                "Softmax",
                node("Mul", ["first", "two"], ["double"]),
                node("Sub", ["double", "half"], ["probabilities"]),
                two=np.float32([2]),
                half=np.float32([0.5]),
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


def test_an_output_that_is_called_by_a_role_has_it_before_any_that_looks_like_it() -> None:
    from fallbacks.predictor import ModelTensor

    f32 = np.dtype(np.float32)
    score, p = ModelTensor("score", f32, (None, 1)), ModelTensor("probabilities", f32, (None, 2))
    answer = {"score": np.full((2, 1), 0.5, np.float32), "probabilities": np.full((2, 2), 0.5, np.float32)}
    guess = guess_roles([score, p], None, answer, np.array([0, 1]))
    assert guess.names == {"probabilities": "probabilities"}


def test_an_output_called_value_that_has_a_column_a_class_is_no_number(tmp_path: Path) -> None:
    folder = begun(tmp_path, nearest(p="value"), rows(2))
    assert yaml.safe_load((folder / "gateway.yaml").read_text())["task"] == "classification"
    assert answered(folder, {"x": ODD}, label=0) == {"probabilities": [1, 0]}
