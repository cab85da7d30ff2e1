"""A network of one hidden layer as the bytes of an ONNX file, written without the `onnx` package.

An ONNX file is one protocol buffer message, and a message is a run of (field number, wire type, value). The
field numbers are those of onnx.proto3; onnxruntime checks all of it when it loads the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F4 = NDArray[np.float32]
ELEMENTS = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.float64): 11}
FLOAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """softmax(relu((x - mean) * scale @ w1 + b1) @ w2 + b2), in float32.

    inputs: the columns of x in order, as int64, float32 or float64[n, width] each.
    mean, scale: [d]; w1: [d, h]; b1: [h]; w2: [h, k]; b2: [k].
    """

    inputs: Mapping[str, tuple[np.dtype[Any], int]]
    mean: F4
    scale: F4
    w1: F4
    b1: F4
    w2: F4
    b2: F4

    def onnx(self) -> bytes:
        """ModelProto with the outputs probabilities, logits and features: IR version 8, operator set 17."""
        casts = [_node("Cast", [name], [f"{name}_cast"], to=FLOAT) for name in self.inputs]
        columns = [f"{name}_cast" for name in self.inputs]
        nodes = [
            *casts,
            _node("Concat", columns, ["columns"], axis=1),
            _node("Sub", ["columns", "mean"], ["centred"]),
            _node("Mul", ["centred", "scale"], ["scaled"]),
            _node("Gemm", ["scaled", "w1", "b1"], ["hidden"]),
            _node("Relu", ["hidden"], ["features"]),
            _node("Gemm", ["features", "w2", "b2"], ["logits"]),
            _node("Softmax", ["logits"], ["probabilities"], axis=1),
        ]
        weights = {"mean": self.mean, "scale": self.scale} | {
            name: getattr(self, name) for name in ("w1", "b1", "w2", "b2")
        }
        classes, hidden = len(self.b2), len(self.b1)
        outputs = {"probabilities": classes, "logits": classes, "features": hidden}
        graph = (
            _fields(1, nodes)
            + _field(2, "network")
            + _fields(5, [_tensor(name, array) for name, array in weights.items()])
            + _fields(
                11, [_value(name, ELEMENTS[dtype], width) for name, (dtype, width) in self.inputs.items()]
            )
            + _fields(12, [_value(name, FLOAT, width) for name, width in outputs.items()])
        )
        return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 17))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, content: int | str | bytes) -> bytes:
    """Wire type 0 (a varint) for a number, 2 (length, then content) for anything else."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _fields(number: int, contents: Sequence[int | str | bytes]) -> bytes:
    return b"".join(_field(number, content) for content in contents)


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], **integers: int) -> bytes:
    attributes = [_field(1, name) + _field(3, one) + _field(20, 2) for name, one in integers.items()]
    return _fields(1, inputs) + _fields(2, outputs) + _field(4, op) + _fields(5, attributes)


def _tensor(name: str, array: F4) -> bytes:
    return _fields(1, array.shape) + _field(2, FLOAT) + _field(8, name) + _field(9, array.tobytes())


def _value(name: str, element: int, width: int) -> bytes:
    """float[n, width] and the like: n is a symbol, so that any number of rows is taken."""
    dims = [_field(2, "n"), _field(1, width)]
    return _field(1, name) + _field(2, _field(1, _field(1, element) + _field(2, _fields(1, dims))))
