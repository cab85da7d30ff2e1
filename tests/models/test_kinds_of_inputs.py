"""Kinds of models by their inputs: each is begun with `gateway init`, and what is odd in any is withheld."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import TensorProto

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from guards import arrays
from tests.support.deployments import run
from tests.support.kinds import (
    F32,
    I64,
    TEXT,
    begun,
    centres,
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
from tests.support.mixed_models import BLANK, COLOURS, UNSEEN, mixed, of, sigmoid_of, weight
from tests.support.typed import Sent, typed
from tests.support.typed_models import Array


@pytest.mark.parametrize("kinds", ["nnnn", "tn", "ntt", "tt", "nw", "pnt", "np"])
def test_every_input_is_guarded_whatever_stands_first(tmp_path: Path, kinds: str) -> None:
    content, held, datatypes = mixed(kinds)
    folder = begun(tmp_path, content, held)
    good = of(int(np.argmax(np.abs(held["y"] - 0.5))), held, datatypes)
    odd: list[dict[str, Sent]] = []
    for name, datatype in datatypes.items():
        if datatype == "BYTES":
            odd += [{**good, name: Sent("BYTES", UNSEEN, False)}, {**good, name: Sent("BYTES", BLANK, False)}]
        else:
            far = 0 if name.startswith("p") else -1e7  # values of pictures have bounds
            odd.append({**good, name: Sent("FP32", np.full_like(good[name].array, far), False)})
    ends = outcomes(folder, *odd)
    assert ends == [(422, "abstained")] * len(odd)


@pytest.mark.parametrize("numbers", [0, 2])
def test_an_input_that_no_guard_can_read_is_named_before_it_is_served(tmp_path: Path, numbers: int) -> None:
    rng, names = np.random.default_rng(0), [f"n{i}" for i in range(numbers)]
    held: dict[str, Array] = {"tags": np.array(COLOURS)[rng.integers(0, 3, (900, 17))]}
    held |= {name: rng.normal(0, 1, 900).astype(np.float32) for name in names}
    nodes = [
        weight("tags", "weights", -4.0, 4.0, -3.0),
        node("ReduceMean", ["weights"], ["part"], axes=[1], keepdims=1),
    ]
    inputs = [info("tags", TEXT, ["n", 17]), *(info(name, F32, ["n", 1]) for name in names)]
    outputs = [info("probabilities", F32, ["n", 1])]
    content = model(sigmoid_of(["part", *names], *nodes), inputs, outputs)
    effect = np.where(held["tags"] == "red", -4, np.where(held["tags"] == "green", 4, -3)).mean(1)
    chance = 1 / (1 + np.exp(-effect - sum(held[name] for name in names)))
    folder = begun(tmp_path, content, held | {"y": (rng.random(900) < chance).astype(np.int64)})
    certificate = yaml.safe_load((folder / "certificate.json").read_text())
    assert certificate["unguarded"].keys() == {"tags"}
    assert any(one.startswith("Of the input tags, nothing") for one in certificate["not_promised"])
    assert ready_alike(folder)


def numbers(element: int, d: int = 3) -> bytes:
    """Probabilities of numbers of any datatype; the first decides."""
    nodes = [
        node("Cast", ["x"], ["cast"], to=F32),
        node("MatMul", ["cast", "w"], ["z"]),
        node("Add", ["z", "b"], ["sum"]),
        node("Sigmoid", ["sum"], ["probabilities"]),
    ]
    w = np.zeros((d, 1), np.float32)
    w[0] = 9
    return model(
        nodes,
        [info("x", element, ["n", d])],
        [info("probabilities", F32, ["n", 1])],
        w=w,
        b=floats([-4.5]),
    )


@pytest.mark.parametrize(
    ("datatype", "element", "far"),
    [
        ("BOOL", TensorProto.BOOL, None),
        ("UINT8", TensorProto.UINT8, 255),
        ("INT64", I64, 2**61),
        ("FP16", TensorProto.FLOAT16, 6e4),
        ("FP64", TensorProto.DOUBLE, 1e300),
    ],
)
def test_numbers_of_any_datatype_are_guarded(
    tmp_path: Path, datatype: str, element: int, far: float | None
) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2, (1200, 3))
    y = np.where(rng.random(1200) < 0.02, 1 - x[:, 0], x[:, 0])
    typed_rows = sent(datatype, x).array
    folder = begun(tmp_path, numbers(element), {"x": typed_rows, "y": y, "group": np.arange(1200)})
    asked = [{"x": sent(datatype, x[:1])}] + ([] if far is None else [{"x": sent(datatype, [[1, far, 0]])}])
    assert outcomes(folder, *asked) == [(200, "ok"), (422, "abstained")][: len(asked)]


def test_identifiers_beyond_the_integers_of_a_float_pass_unchanged(tmp_path: Path) -> None:
    x = labelled(1200)[0]
    ids = 2**60 + np.random.default_rng(0).integers(0, 2**40, 1200)
    nodes = [
        node("Gemm", ["x", "w"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
        node("Identity", ["id"], ["echo"]),
    ]
    w = np.eye(4, 2, dtype=np.float32)
    outputs = [info("probabilities", F32, ["n", 2]), info("echo", I64, ["n", 1])]
    content = model(nodes, [info("id", I64, ["n", 1]), info("x", F32, ["n", 4])], outputs, w=w)
    folder = initialised(tmp_path, content, {"id": ids, "x": x, "y": (x[:, 1] > x[:, 0]).astype(int)})
    policy = folder / "gateway.yaml"
    text = policy.read_text()
    names = ", names: {label: echo}" if "label: echo" in text else ""
    policy.write_text(text.replace(names, "").replace("expose: [probabilities, label]", "expose: [echo]"))
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")

    async def main() -> None:
        async with typed(folder) as to:
            asked = {"id": sent("INT64", ids[:1, None]), "x": sent("FP32", x[:1])}
            reply = await to.ask(asked)
            assert reply.status == 200
            assert reply.json["outputs"][0]["data"] == [int(ids[0])]

    run(main)


def test_two_hundred_inputs_are_guarded_each(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(2), [f"c{i}" for i in range(200)]
    held = {name: rng.normal(0, 1, 1500).astype(np.float32) for name in names}
    content = model(
        sigmoid_of(["part"], node("Mul", ["c0", "k"], ["part"])),
        [info(name, F32, ["n", 1]) for name in names],
        [info("probabilities", F32, ["n", 1])],
        k=floats([9]),
    )
    folder = begun(tmp_path, content, held | {"y": (held["c0"] > 0).astype(int)})
    good = of(int(np.argmax(held["c0"])), held, dict.fromkeys(names, "FP32"))
    odd = [{**good, name: sent("FP32", [[300]])} for name in ("c1", "c77", "c199")]
    assert outcomes(folder, *odd) == [(422, "abstained")] * 3


@pytest.mark.parametrize("constant", [[2], [0, 1, 3]])
def test_columns_that_never_vary_stop_what_differs_there(tmp_path: Path, constant: list[int]) -> None:
    x = labelled(1200)[0]
    x[:, constant] = 7
    folder = begun(tmp_path, nearest(), {"x": x, "y": own_classes(x)})
    odd = x[:1].copy()
    odd[:, constant[0]] = 8
    assert outcomes(folder, {"x": sent("FP32", odd)}) == [(422, "abstained")]


def own_classes(x: Array) -> Array:
    """What `nearest` answers."""
    at = centres(2)
    answers: Array = (x @ at.T - (at**2).sum(1) / 2).argmax(1)
    return answers


@pytest.mark.parametrize("grouped", [False, True])
def test_rows_that_are_all_equal_are_refused_with_what_is_wrong(tmp_path: Path, grouped: bool) -> None:
    x = labelled(1200)[0]
    held = {"x": np.repeat(x[:1], 1200, 0), "y": np.repeat(own_classes(x[:1]), 1200)}
    folder = initialised(tmp_path, nearest(), held)
    groups = {"group": np.arange(1200)} if grouped else {}
    arrays.save(tmp_path / "rows.npz", held | groups)
    says = "all alike; give rows that vary" if grouped else "equal rows are taken as copies of one another"
    with pytest.raises(Problems, match=says):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
