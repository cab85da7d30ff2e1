"""Tiny ONNX models as bytes, written without the `onnx` package.

An ONNX file is one protocol buffer message, and a message is a run of (field number, wire type, value).
`field` writes one; the rest are the few messages of onnx.proto3 that a small graph needs, with their
field numbers spelled out. What comes out is loaded by onnxruntime itself, which checks all of it.

    model([node("Relu", ["x"], ["y"])], inputs=[value("x", np.float32, (None, 4))], outputs=[...])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int | str | None, ...]

# onnx.TensorProto.DataType
ELEMENTS: Final = {
    np.dtype(np.float32): 1,
    np.dtype(np.uint8): 2,
    np.dtype(np.int64): 7,
    np.dtype(object): 8,
    np.dtype(np.bool_): 9,
    np.dtype(np.float16): 10,
    np.dtype(np.float64): 11,
}


def varint(number: int) -> bytes:
    """A base-128 number, low groups first; every byte but the last has its top bit set."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: int | str | bytes) -> bytes:
    """One field: wire type 0 (a varint) for a number, 2 (length, then content) for anything else."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(number: int, contents: Sequence[int | str | bytes]) -> bytes:
    return b"".join(field(number, content) for content in contents)


def tensor(name: str, array: NDArray[Any]) -> bytes:
    """TensorProto: dims, data_type, name, raw_data."""
    dims = fields(1, array.shape)
    return dims + field(2, ELEMENTS[array.dtype]) + field(8, name) + field(9, array.tobytes())


def external(name: str, shape: tuple[int, ...], **where: str) -> bytes:
    """TensorProto of float32 whose data lies elsewhere: `location`, `offset` and `length` say where."""
    entries = [field(1, key) + field(2, text) for key, text in where.items()]
    return fields(1, shape) + field(2, 1) + field(8, name) + fields(13, entries) + field(14, 1)


def value(name: str, dtype: Any, shape: Shape) -> bytes:
    """ValueInfoProto of a tensor. A dimension is a number, a symbol, or None (nothing known)."""
    known = {int: 1, str: 2}
    dims = [b"" if dim is None else field(known[type(dim)], dim) for dim in shape]
    tensor_type = field(1, ELEMENTS[np.dtype(dtype)]) + field(2, fields(1, dims))
    return field(1, name) + field(2, field(1, tensor_type))


def attribute(name: str, content: int | bytes) -> bytes:
    """AttributeProto: an integer, or a graph."""
    if isinstance(content, int):
        return field(1, name) + field(3, content) + field(20, 2)
    return field(1, name) + field(6, content) + field(20, 5)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | bytes) -> bytes:
    """NodeProto: one operator of the standard domain."""
    attrs = [attribute(name, content) for name, content in attributes.items()]
    return fields(1, inputs) + fields(2, outputs) + field(4, op) + fields(5, attrs)


def graph(
    nodes: Sequence[bytes],
    *,
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    weights: Sequence[bytes] = (),
) -> bytes:
    """GraphProto. Nodes come in the order in which they run."""
    return fields(1, nodes) + field(2, "g") + fields(5, weights) + fields(11, inputs) + fields(12, outputs)


def model(
    nodes: Sequence[bytes],
    *,
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    weights: Sequence[bytes] = (),
) -> bytes:
    """ModelProto: IR version 8, operator set 17."""
    body = graph(nodes, inputs=inputs, outputs=outputs, weights=weights)
    return field(1, 8) + field(7, body) + field(8, field(1, "") + field(2, 17))


def identity(shape: Shape = ("n", 3), dtype: Any = np.float32) -> bytes:
    """y = x."""
    return model(
        [node("Identity", ["x"], ["y"])],
        inputs=[value("x", dtype, shape)],
        outputs=[value("y", dtype, shape)],
    )


def classifier(weights: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    """logits = x W + b, probabilities = softmax(logits)."""
    d, k = weights.shape
    return model(
        [node("Gemm", ["x", "w", "b"], ["logits"]), node("Softmax", ["logits"], ["probabilities"], axis=1)],
        inputs=[value("x", np.float32, ("n", d))],
        outputs=[value("probabilities", np.float32, ("n", k)), value("logits", np.float32, ("n", k))],
        weights=[tensor("w", weights), tensor("b", bias)],
    )


def not_a_number() -> bytes:
    """y = x / 0 * 0: NaN for every x."""
    zero = tensor("zero", np.zeros(1, np.float32))
    return model(
        [node("Div", ["x", "zero"], ["inf"]), node("Mul", ["inf", "zero"], ["y"])],
        inputs=[value("x", np.float32, ("n", 3))],
        outputs=[value("y", np.float32, ("n", 3))],
        weights=[zero],
    )


def loop() -> bytes:
    """y = x + trips, one at a time, where trips = max(x): 1e18 hangs and 3 does not."""
    body = graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["y_in", "one"], ["y_out"])],
        inputs=[value("i", np.int64, ()), value("go", np.bool_, ()), value("y_in", np.float32, ("n", 3))],
        outputs=[value("go_on", np.bool_, ()), value("y_out", np.float32, ("n", 3))],
    )
    return model(
        [
            node("ReduceMax", ["x"], ["most"], keepdims=0),
            node("Cast", ["most"], ["trips"], to=7),
            node("Loop", ["trips", "true", "x"], ["y"], body=body),
        ],
        inputs=[value("x", np.float32, ("n", 3))],
        outputs=[value("y", np.float32, ("n", 3))],
        weights=[tensor("true", np.array(True)), tensor("one", np.ones(1, np.float32))],
    )
