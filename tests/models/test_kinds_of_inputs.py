"""Kinds of models by their inputs: each is begun with `gateway init`, checked, and served as it was checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from onnx import NodeProto, TensorProto, ValueInfoProto

from gateway.calibration.calibrate import calibrate
from gateway.core.errors import Problems
from gateway.deployment.deployment import Deployment
from tests.support.deployments import run
from tests.support.kinds import (
    F32,
    I64,
    TEXT,
    begun,
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
from tests.support.typed import INFER, Sent, typed
from tests.support.typed_models import Array, texts

BLANK, UNSEEN = texts(b"").reshape(1, 1), texts("Ætna ✈".encode()).reshape(1, 1)
COLOURS = ["red", "green", "blue"]


def of(row: int, held: dict[str, Array], datatypes: dict[str, str]) -> dict[str, Sent]:
    """One row of a file as a request; text as bytes."""
    found = {}
    for name, datatype in datatypes.items():
        one = held[name][row : row + 1]
        if datatype == "BYTES":
            one = texts(*(str(item).encode() for item in one.reshape(-1)))
        found[name] = Sent(datatype, one.reshape(1, 1) if one.ndim == 1 else one, False)
    return found


def sigmoid_of(parts: Sequence[str], *nodes: NodeProto) -> list[NodeProto]:
    """probabilities [n, 1] of the sum of columns."""
    return [*nodes, node("Sum", list(parts), ["total"]), node("Sigmoid", ["total"], ["probabilities"])]


def weight(text: str, to: str, *weights: float) -> NodeProto:
    """A column of numbers for a column of colours; 0 for any other text."""
    return node(
        "LabelEncoder",
        [text],
        [to],
        domain="ai.onnx.ml",
        keys_strings=COLOURS,
        values_floats=list(weights),
        default_float=0.0,
    )


def mixed(kinds: str) -> tuple[bytes, dict[str, Array], dict[str, str]]:
    """A model of inputs of these kinds in this order (t: text, n: number, p: picture, w: 600 numbers)."""
    rng, n = np.random.default_rng(5), 1600
    held: dict[str, Array] = {}
    datatypes: dict[str, str] = {}
    inputs: list[ValueInfoProto] = []
    nodes: list[NodeProto] = []
    parts: list[str] = []
    for i, kind in enumerate(kinds):
        name, part = f"{kind}{i}", f"part{i}"
        parts.append(part)
        datatypes[name] = "BYTES" if kind == "t" else "FP32"
        if kind == "t":
            inputs.append(info(name, TEXT, ["n", 1]))
            nodes.append(weight(name, part, -4.0, 4.0, -3.0))
            held[name] = np.array(COLOURS)[rng.integers(0, 3, n)]
        elif kind == "n":
            inputs.append(info(name, F32, ["n", 1]))
            nodes.append(node("Identity", [name], [part]))
            held[name] = rng.normal(0, 1, n).astype(np.float32)
        elif kind == "w":
            inputs.append(info(name, F32, ["n", 600]))
            nodes.append(node("ReduceMean", [name], [part], axes=[1], keepdims=1))
            held[name] = rng.normal(0, 1, (n, 600)).astype(np.float32)
        else:
            inputs.append(info(name, F32, ["n", 1, 6, 6]))
            nodes += [
                node("GlobalAveragePool", [name], [f"pooled{i}"]),
                node("Flatten", [f"pooled{i}"], [part]),
            ]
            held[name] = rng.random((n, 1, 6, 6)).astype(np.float32)
    held["y"] = np.zeros(n, np.int64)
    content = model(sigmoid_of(parts, *nodes), inputs, [info("probabilities", F32, ["n", 1])])
    effect = {"red": -4.0, "green": 4.0, "blue": -3.0}
    total = np.zeros(n)
    for name in datatypes:
        one = held[name]
        total += (
            [effect[item] for item in one.tolist()] if one.dtype.kind == "U" else one.reshape(n, -1).mean(1)
        )
    held["y"] = (total + rng.logistic(0, 0.2, n) > 0).astype(np.int64)
    return content, held | {"group": np.arange(n)}, datatypes


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


@pytest.mark.parametrize(("wide", "others"), [(5000, 0), (1025, 2)])
def test_an_input_that_no_guard_can_read_is_named_by_the_certificate(
    tmp_path: Path, wide: int, others: int
) -> None:
    rng = np.random.default_rng(0)
    names = [f"n{i}" for i in range(others)]
    held: dict[str, Array] = {"wide": rng.normal(0, 1, (900, wide)).astype(np.float32)}
    held |= {name: rng.normal(0, 1, 900).astype(np.float32) for name in names}
    nodes = [
        node("Slice", ["wide", "zero", "one", "one"], ["first"]),
        node("Mul", ["first", "eight"], ["part"]),
    ]
    inputs = [info("wide", F32, ["n", wide]), *(info(name, F32, ["n", 1]) for name in names)]
    weights = {"zero": [0], "one": [1], "eight": np.float32([8])}
    content = model(
        sigmoid_of(["part", *names], *nodes), inputs, [info("probabilities", F32, ["n", 1])], **weights
    )
    total = 8 * held["wide"][:, 0] + sum(held[name] for name in names)
    folder = begun(tmp_path, content, held | {"y": (total > 0).astype(np.int64)})
    assert yaml.safe_load((folder / "certificate.json").read_text())["unguarded"].keys() == {"wide"}
    assert ready_alike(folder)


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
    assert outcomes(folder, good, {"code": strange}) == [(200, "ok"), (422, "abstained")]


def pooled(shape: Any) -> bytes:
    """A picture of two channels and of any size; its class is the channel that is brighter."""
    nodes = [
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Mul", ["flat", "k"], ["z"]),
        node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    return model(
        nodes, [info("image", F32, shape)], [info("probabilities", F32, ["n", 2])], k=np.float32([200])
    )


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
            k=np.float32([90]),
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
                    class_treeids=[0] * 4,
                    class_nodeids=[1, 1, 2, 2],
                    class_ids=[0, 1, 0, 1],
                    class_weights=[0.9, 0.1, 0.2, 0.8],
                    classlabels_int64s=[0, 1],
                    post_transform="NONE",
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
    assert ends[0] in [(200, "ok"), (422, "abstained")]
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
    np.savez(tmp_path / "rows.npz", **{name: x[:, i] for i, name in enumerate(names)})
    with pytest.raises(Problems, match=r"y: is an input of the model.*`names: \{OTHER: y\}`"):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    policy = folder / "gateway.yaml"
    policy.write_text(policy.read_text().replace("primary.onnx}", "primary.onnx, names: {height: y}}"))
    held = {"height": x[:, 0], "b": x[:, 1], "c": x[:, 2], "d": x[:, 3], "y": y}
    np.savez(tmp_path / "rows.npz", **held)
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    good = {name: Sent("FP32", held[name][:1, None], False) for name in ("height", "b", "c", "d")}
    assert outcomes(folder, good)[0][0] == 200


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
        b=np.float32([-4.5]),
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
    x, y = labelled(1200)
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
        k=np.float32([9]),
    )
    folder = begun(tmp_path, content, held | {"y": (held["c0"] > 0).astype(int)})
    good = of(int(np.argmax(held["c0"])), held, dict.fromkeys(names, "FP32"))
    odd = [{**good, name: sent("FP32", [[300]])} for name in ("c1", "c77", "c199")]
    assert outcomes(folder, *odd) == [(422, "abstained")] * 3


@pytest.mark.parametrize("constant", [[2], [0, 1, 3]])
def test_columns_that_never_vary_stop_what_differs_there(tmp_path: Path, constant: list[int]) -> None:
    x, y = labelled(1200)
    x[:, constant] = 7
    content = nearest()
    folder = initialised(tmp_path, content, {"x": x, "y": y})
    policy = yaml.safe_load((folder / "gateway.yaml").read_text())
    del policy["rungs"][0]["checks"]
    (folder / "gateway.yaml").write_text(
        yaml.safe_dump(policy | {"answered_error": 0.5, "task": "classification"})
    )
    truth = np.random.default_rng(0).integers(0, 2, 1200)
    np.savez(tmp_path / "rows.npz", x=x, y=np.where(truth < 2, _own_class(x), 0))
    calibrate(Deployment.read(folder), tmp_path / "rows.npz")
    odd = x[:1].copy()
    odd[:, constant[0]] = 8
    assert outcomes(folder, {"x": sent("FP32", odd)}) == [(422, "abstained")]


def _own_class(x: Array) -> Array:
    """What `nearest` answers."""
    from tests.support.kinds import centres

    at = centres(2)
    answers: Array = (x @ at.T - (at**2).sum(1) / 2).argmax(1)
    return answers


@pytest.mark.parametrize("grouped", [False, True])
def test_rows_that_are_all_equal_are_refused_with_what_is_wrong(tmp_path: Path, grouped: bool) -> None:
    x, y = labelled(1200)
    held = {"x": np.repeat(x[:1], 1200, 0), "y": np.repeat(_own_class(x[:1]), 1200)}
    folder = initialised(tmp_path, nearest(), held)
    np.savez(tmp_path / "rows.npz", **held, **({"group": np.arange(1200)} if grouped else {}))
    says = "all alike; give rows that vary" if grouped else "equal rows are taken as copies of one another"
    with pytest.raises(Problems, match=says):
        calibrate(Deployment.read(folder), tmp_path / "rows.npz")


def test_bytes_that_are_no_utf8_are_the_callers_to_mend(tmp_path: Path) -> None:
    content, held, datatypes = mixed("tnt")
    folder = begun(tmp_path, content, held)
    good = of(0, held, datatypes)

    async def main() -> None:
        async with typed(folder) as to:
            for name, index in (("t0", 0), ("t2", 2)):
                for raw in ("niño".encode("latin-1"), b"\xff\xfe", b"\xed\xa0\x80"):
                    bad = {**good, name: Sent("BYTES", texts(raw).reshape(1, 1), True)}
                    reply = await to.ask(bad)
                    assert reply.status == 400
                    assert reply.json["error"] == f"inputs[{index}].data: row 0: not UTF-8 text"
            body = (
                b'{"inputs": [{"name": "t0", "datatype": "BYTES", "shape": [1, 1], "data": ["\\ud800"]},'
                b'{"name": "n1", "datatype": "FP32", "shape": [1, 1], "data": [0]},'
                b'{"name": "t2", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]}]}'
            )
            reply = await to.ada.request("POST", INFER, body)
            assert (reply.status, "surrogate" in reply.json["error"]) == (400, True)
            assert await to.review.store.count_waiting() == 0

    run(main)


def test_a_binary_body_without_the_length_of_its_head_says_which_header_is_missing(tmp_path: Path) -> None:
    folder = begun(tmp_path, nearest(), dict(zip("xy", labelled(1200), strict=True)))

    async def main() -> None:
        async with typed(folder) as to:
            head = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}'
            for tail in (struct.pack("<4f", 1, 2, 3, 4), b"\xff" * 16):
                reply = await to.ada.request("POST", INFER, head + tail)
                assert reply.status == 400
                assert "Inference-Header-Content-Length" in reply.json["error"]

    run(main)
