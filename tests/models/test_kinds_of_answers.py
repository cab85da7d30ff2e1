"""Kinds of models by their answers: each is begun with `gateway init`, served, and answered by a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import NodeProto, TensorProto, ValueInfoProto

from gateway.calibration.calibrate import calibrate
from gateway.deployment.deployment import Deployment
from tests.support.deployments import edit, run
from tests.support.kinds import (
    F32,
    F64,
    I64,
    ODD,
    TEXT,
    answered,
    begun,
    deferred_to,
    info,
    labelled,
    model,
    nearest,
    node,
    outputs_at,
    rows,
    said,
    sent,
)
from tests.support.typed import typed

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
