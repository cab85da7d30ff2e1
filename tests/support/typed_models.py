"""A model of every datatype, rows for it, and what onnxruntime itself says of them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


class Datatype(NamedTuple):
    """One datatype of the protocol: what ONNX calls it, its numpy form, whether it may come as JSON."""

    name: str
    element: int
    dtype: np.dtype[Any]
    json: bool = True


BITS = (8, 16, 32, 64)
DATATYPES = {
    one.name: one
    for one in (
        Datatype("BOOL", TensorProto.BOOL, np.dtype(bool)),
        *(Datatype(f"UINT{n}", getattr(TensorProto, f"UINT{n}"), np.dtype(f"u{n // 8}")) for n in BITS),
        *(Datatype(f"INT{n}", getattr(TensorProto, f"INT{n}"), np.dtype(f"i{n // 8}")) for n in BITS),
        Datatype("FP16", TensorProto.FLOAT16, np.dtype(np.float16), json=False),
        Datatype("FP32", TensorProto.FLOAT, np.dtype(np.float32)),
        Datatype("FP64", TensorProto.DOUBLE, np.dtype(np.float64)),
        Datatype("BF16", TensorProto.BFLOAT16, np.dtype(np.float32), json=False),
        Datatype("BYTES", TensorProto.STRING, np.dtype(object)),
    )
}  # fmt: skip

WORDS = {b"no": 0.0, "jä 🙂".encode(): 100.0, b"": 100.0, b"perhaps": 50.0, b"a\0b": 0.0}
"""What the model of text knows, and how sure it is of class 1, in per cent; any other text: 100."""


def texts(*values: bytes) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def widths(datatype: str) -> int:
    return 1 if datatype == "BYTES" else 3


def rows(datatype: str, n: int, seed: int = 0, unsure: bool = False) -> Array:
    """n rows that the model is sure of (or not), with extreme values beside the one that decides."""
    rng, dtype = np.random.default_rng(seed), DATATYPES[datatype].dtype
    if datatype == "BYTES":
        words = [b"perhaps"] if unsure else [word for word, sure in WORDS.items() if sure != 50.0]
        return texts(*(words[i] for i in rng.integers(len(words), size=n))).reshape(n, 1)
    decides = np.full(n, 50) if unsure else rng.integers(2, size=n) * 100
    if datatype == "BOOL":
        return np.stack([decides > 0, *rng.integers(2, size=(2, n))], 1).astype(bool)
    edges: Array = np.array([0, 1, 2, 100], dtype)
    if dtype.kind in "iu":
        edges = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 1, 7], dtype)
    elif datatype == "BF16":
        bits = np.array([0x7F7F, 0x0001, 0xBF81, 0x3E2B], np.uint32)  # the largest, the least, two more
        edges = (bits << 16).view(np.float32)
    else:
        edges = np.array([np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, -0.1, 1 / 3], dtype)
    return np.stack([decides.astype(dtype), *edges[rng.integers(4, size=(2, n))]], 1)


def one_input(datatype: str) -> bytes:
    """y = x; probabilities = how sure of class 1, and the rest: x's first column in per cent, or a word's."""
    kind, width = DATATYPES[datatype], widths(datatype)
    scale = np.float32(1.0 if datatype == "BOOL" else 0.01)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if datatype == "BYTES":
        known = {word.decode(): sure for word, sure in WORDS.items()}
        table: dict[str, Any] = {"keys_strings": list(known), "values_floats": list(known.values())}
        lookup = {"domain": "ai.onnx.ml", "default_float": 100.0, **table}
        nodes.append(helper.make_node("LabelEncoder", ["x"], ["numbers"], **lookup))
    else:
        nodes.append(helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT))
    nodes += sureness("numbers")
    return model(
        nodes,
        [helper.make_tensor_value_info("x", kind.element, ["n", width])],
        [
            helper.make_tensor_value_info("y", kind.element, ["n", width]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2]),
        ],
        scale,
    )


def sureness(numbers: str) -> list[NodeProto]:
    """probabilities from the first column of float[n, w]."""
    return [
        helper.make_node("Gather", [numbers, "first"], ["column"], axis=1),
        helper.make_node("Mul", ["column", "scale"], ["raw"]),
        helper.make_node("Clip", ["raw", "zero", "one"], ["p1"]),
        helper.make_node("Sub", ["one", "p1"], ["p0"]),
        helper.make_node("Concat", ["p0", "p1"], ["probabilities"], axis=1),
    ]


def long_rows(datatype: str) -> bytes:
    """As `one_input`, for rows of any length, and without y."""
    value, kind = helper.make_tensor_value_info, DATATYPES[datatype]
    nodes = [helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT), *sureness("numbers")]
    inputs, outputs = (
        value("x", kind.element, ["n", "m"]),
        value("probabilities", TensorProto.FLOAT, ["n", 2]),
    )
    return model(nodes, [inputs], [outputs], np.float32(0.01))


def three_inputs() -> bytes:
    """Text, pictures and a series of any length in; each comes back, and `probabilities` beside them."""
    made = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Identity", ["words"], ["said"]),
        helper.make_node("Not", ["mask"], ["unmasked"]),
        helper.make_node("ReduceSum", ["series", "axis"], ["total"], keepdims=0),
        helper.make_node("Unsqueeze", ["total", "axis"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["numbers"], to=TensorProto.FLOAT),
        *sureness("numbers"),
    ]
    return model(
        nodes,
        [
            made("words", TensorProto.STRING, ["n"]),
            made("mask", TensorProto.BOOL, ["n", 2, 2]),
            made("series", TensorProto.DOUBLE, ["n", "m"]),
        ],
        [
            made("said", TensorProto.STRING, ["n"]),
            made("unmasked", TensorProto.BOOL, ["n", 2, 2]),
            made("total", TensorProto.DOUBLE, ["n"]),
            made("probabilities", TensorProto.FLOAT, ["n", 2]),
        ],
        np.float32(0.01),
    )


def model(nodes: Sequence[NodeProto], inputs: Sequence[Any], outputs: Sequence[Any], scale: Any) -> bytes:
    weights: dict[str, Array] = {
        "first": np.zeros(1, np.int64),
        "axis": np.ones(1, np.int64),
        "scale": np.array([scale], np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
    }
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "typed", list(inputs), list(outputs), held)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()


def own_run(content: bytes, inputs: Mapping[str, tuple[str, Array]]) -> dict[str, Array]:
    """What onnxruntime itself says, called with its own types; BF16 as float32, text as bytes."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [arg.name for arg in session.get_outputs()]
    if all(datatype != "BF16" for datatype, _ in inputs.values()):
        feed = {
            name: np.array([item.decode() for item in a.flat], object).reshape(a.shape)
            if kind == "BYTES"
            else a
            for name, (kind, a) in inputs.items()
        }
        answers = dict(zip(names, session.run(names, feed), strict=True))
        return {
            name: texts(*(item.encode() for item in a.flat)).reshape(a.shape) if a.dtype == object else a
            for name, a in answers.items()
        }
    bits = {name: half(array) for name, (_, array) in inputs.items()}
    make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    values = {name: make(array, TensorProto.BFLOAT16) for name, array in bits.items()}
    return {
        name: unhalf(ctypes.string_at(value.data_ptr(), 2 * int(np.prod(value.shape()))), value.shape())
        if value.element_type() == TensorProto.BFLOAT16
        else value.numpy()
        for name, value in zip(names, session.run_with_ort_values(names, values), strict=True)
    }


def half(array: Array) -> NDArray[np.uint16]:
    """The upper halves of float32 that have nothing in the lower ones."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any(), "not BF16"
    return (bits >> 16).astype(np.uint16)


def unhalf(raw: bytes, shape: Sequence[int]) -> Array:
    return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
