"""What may guard a deployment of any datatype, and what its held-out rows may hold; the rest is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.calibration.dataset import read
from gateway.core.errors import PolicyError, Problem
from gateway.protocol.contract import Contract, TensorSpec
from tests.support.deployments import load, run
from tests.support.typed import POLICY, Sent, deployed, held_out, tensors_of, typed
from tests.support.typed_models import DATATYPES, Array, one_input, texts

RATE = "  - {name: rate,"
OOD = "  - {name: ood, kind: ood, detectors: [raw], cuts: {defer: certified}, budget_s: 5, on_error: defer}\n"
NOISE, FEATURES = OOD.replace("raw", "noise"), OOD.replace("raw", "raw, rmd")
SQUEEZE = "  - {name: bent, kind: squeeze, cuts: {defer: certified}, budget_s: 5, on_error: defer}\n"


def refused(folder: Path, content: bytes, policy: str) -> Problem:
    """The one problem of a deployment, told before anything is calibrated."""
    (folder / "model.onnx").write_bytes(content)
    (folder / "gateway.yaml").write_text(policy.replace("EXPOSED", "y"))
    with pytest.raises(PolicyError) as caught:
        load(folder)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("datatype", "guard", "field", "says"),
    [
        ("BYTES", NOISE, "guards[0].detectors", "noise reads a picture, and no input is one"),
        ("BYTES", SQUEEZE, "guards[0].kind", "squeezes a picture in FP32, and no input is one"),
        ("FP32", FEATURES, "guards[0].detectors", "rmd reads the output 'features', and the first rung has"),
    ],
)
def test_a_guard_that_cannot_read_the_input_is_reported_with_its_line(
    tmp_path: Path, datatype: str, guard: str, field: str, says: str
) -> None:
    policy = POLICY.replace(RATE, guard + RATE)
    problem = refused(tmp_path, one_input(datatype), policy)
    assert problem.field == field
    assert says in problem.what
    assert policy.splitlines()[problem.line - 1].strip() == guard.strip()


def with_probabilities(element: int, *shape: int | str) -> bytes:
    """y = x, and x once more, in another type or shape, as `probabilities`."""
    wide = numpy_helper.from_array(np.array([0, *shape[1:]], np.int64), "wide")  # 0: as many as came
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Reshape", ["x", "wide"], ["shaped"]),
        helper.make_node("Cast", ["shaped"], ["probabilities"], to=element),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3]), value("probabilities", element, list(shape))],
        [wide],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    "content",
    [with_probabilities(TensorProto.INT32, "n", 3), with_probabilities(TensorProto.FLOAT, "n", 1, 3)],
    ids=["integers", "another rank"],
)
def test_a_check_without_probabilities_to_read_is_reported(tmp_path: Path, content: bytes) -> None:
    problem = refused(tmp_path, content, POLICY)
    assert (problem.field, problem.line) == ("rungs[0].checks[0]", 12)
    assert "'probabilities', a float for each class" in problem.what


def test_a_fallback_that_gives_float_for_bfloat16_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(one_input("FP32"))
    rung = "  - {name: small, model: {kind: onnx, path: other.onnx}, budget_s: 5}\n"
    policy = POLICY.replace("review:", rung + "review:")
    (tmp_path / "model.onnx").write_bytes(one_input("BF16"))
    (tmp_path / "gateway.yaml").write_text(policy.replace("EXPOSED", "y"))
    with pytest.raises(PolicyError) as caught:
        load(tmp_path)
    assert [problem.field for problem in caught.value.problems] == ["rungs[1].model", "expose[0]"]


def spelled(n: int) -> bytes:
    """A model of n words of two classes, by turns: an embedding as features, logits and probabilities."""
    rng, centres = np.random.default_rng(3), np.eye(2, 6)
    features = centres[np.arange(n) % 2] + 0.05 * rng.normal(size=(n, 6))
    table = np.concatenate([features, 5 * np.eye(6)[5:]])  # what is no word lies elsewhere
    weights = {"table": table, "head": 20 * centres.T}
    words: dict[str, Any] = {"keys_strings": [f"w{i}" for i in range(n)], "values_int64s": list(range(n))}
    nodes = [
        helper.make_node("LabelEncoder", ["x"], ["at"], domain="ai.onnx.ml", default_int64=n, **words),
        helper.make_node("Gather", ["table", "at"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    value = helper.make_tensor_value_info
    outputs = {"features": 6, "logits": 2, "probabilities": 2}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.STRING, ["n"])],
        [value(name, TensorProto.FLOAT, ["n", k]) for name, k in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_text_is_guarded_by_what_the_model_makes_of_it(tmp_path: Path) -> None:
    guard = OOD.replace("[raw]", "[rmd, knn]").replace("cuts", "without_features: defer, cuts")
    check = POLICY[POLICY.index("    checks:") : POLICY.index("review:")]
    policy = POLICY.replace(RATE, guard + RATE).replace(check, "")
    x = texts(*(b"w%d" % i for i in range(1500)))
    held = {"x": x, "y": np.arange(1500) % 2}
    deployed(tmp_path, spelled(1500), ["probabilities"], held, policy)

    async def main() -> None:
        async with typed(tmp_path) as to:
            row = Sent("BYTES", np.concatenate([x[48:52], texts(b"never seen")]), False)
            asked = [{"name": "fs_row_outcome"}]
            ends = tensors_of(await to.ask({"x": row}, outputs=asked))["fs_row_outcome"].tolist()
            assert ends == [b"served"] * 4 + [b"deferred"]

    run(main)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_deployment_of_each_datatype_is_the_same_each_time_it_is_calibrated(
    tmp_path: Path, datatype: str
) -> None:
    for name in ("one", "two"):
        deployed(tmp_path / name, one_input(datatype), ["y"], held_out(datatype))
    for name in ("certificate.json", "guards.npz", "scores.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def contract(*inputs: TensorSpec) -> Contract:
    return Contract("m", inputs, (TensorSpec("p", np.dtype(np.float32), (None, 2)),), 8, "1")


def spec(datatype: str, name: str = "a", *shape: int) -> TensorSpec:
    kind = DATATYPES[datatype]
    return TensorSpec(name, kind.dtype, (None, *shape), bf16=datatype == "BF16")


@pytest.mark.parametrize(
    ("datatype", "held", "read_as"),
    [
        ("INT8", np.array([1.0, -128.0]), [1, -128]),
        ("UINT64", np.array([2**64 - 1, 0], np.uint64), [2**64 - 1, 0]),
        ("BOOL", np.array([0, 1], np.uint8), [False, True]),
        ("FP16", np.array([0.1, 2.0]), [0.0999755859375, 2.0]),
        ("BF16", np.array([0.1, 1.00390625]), [0.10009765625, 1.0]),
        ("BYTES", np.array(["jä", ""]), ["jä".encode(), b""]),
        ("BYTES", np.array([b"\xff", b"ab"]), [b"\xff", b"ab"]),
    ],
)
def test_held_out_values_are_read_as_the_wire_would_bring_them(
    datatype: str, held: Array, read_as: list[Any]
) -> None:
    x = read({"a": held, "y": np.zeros(2, int)}, contract(spec(datatype))).x
    assert x["a"].dtype == DATATYPES[datatype].dtype
    assert x["a"].tolist() == read_as


@pytest.mark.parametrize(
    ("datatype", "held", "says"),
    [
        ("UINT8", np.array([0, 256]), "a: holds values that UINT8 cannot, first 256 in row 1"),
        ("UINT8", np.array([0.0, -1.0]), "a: holds values that UINT8 cannot, first -1.0 in row 1"),
        ("INT32", np.array([0.0, 0.5]), "a: holds values that INT32 cannot, first 0.5 in row 1"),
        ("INT64", np.array([0.0, np.nan]), "a: holds NaN, first in row 1; encode .* out$"),
        (
            "INT64",
            np.array([0.0, 2.0**63]),
            "a: holds values that INT64 cannot, first 9.22.* in row 1",
        ),
        ("BOOL", np.array([0, 2]), "a: holds values that BOOL cannot, first 2 in row 1"),
        (
            "FP16",
            np.array([0.0, 1e6]),
            "a: holds values outside -65504.0 to 65504.0, first 1000000.0 in row 1",
        ),
        ("BF16", np.array([0.0, 3.4e38]), "a: holds values outside .*, first 3.4e.* in row 1"),
        ("BF16", np.array([0.0, np.nan]), "a: holds NaN, first in row 1; .* if the model takes NaN, say"),
        ("FP32", np.array(["1", "2"]), "a: is text, not numbers that FP32 can hold; save it with astype"),
        ("BYTES", np.array([1, 2]), "a: is int64, not text that BYTES can hold; save it with astype"),
        ("BYTES", np.array(["a", "b", "c"]), "a: has shape"),
    ],
)
def test_held_out_values_that_the_protocol_cannot_carry_are_reported(
    datatype: str, held: Array, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        read({"a": held, "y": np.zeros(2, int)}, contract(spec(datatype)))


def test_x_stands_for_the_first_input_unless_another_has_that_name() -> None:
    held = {"x": np.zeros(2, np.float32), "b": np.array(["s", "t"]), "y": np.zeros(2, int)}
    x = read(held, contract(spec("FP32", "a"), spec("BYTES", "b"))).x
    assert {name: array.tolist() for name, array in x.items()} == {"a": [0.0, 0.0], "b": [b"s", b"t"]}
    with pytest.raises(ValueError, match=r"^a: missing; the file holds x, b$"):
        read(held, contract(spec("FP32", "a"), spec("FP32", "x")))
    with pytest.raises(ValueError, match=r"^b: missing; the file holds x$"):
        read({"x": held["x"], "y": held["y"]}, contract(spec("FP32", "a"), spec("BYTES", "b")))
