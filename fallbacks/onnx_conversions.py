"""Conversions at a model's inputs and outputs for what numpy has no dtype for: text, and bfloat16.

Text. On the wire it is bytes; onnxruntime takes `str`. It would accept bytes too, silently, as their Python
representation (`b'a'`), and it reads past the end of numpy's own byte strings: so only `str` is passed to it.
Both conversions are exact, NUL included; bytes that are not UTF-8 are an unfit input.

bfloat16. In numpy it is a float32 whose low sixteen bits are zero. onnxruntime returns no bfloat16 to Python
at all, and takes such inputs only where no input is text. So a Cast is inserted into the graph at each such
input and output: both are exact, for any mix of types, and the model still runs in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from fallbacks.predictor import UnfitInput

TextArray: TypeAlias = NDArray[np.object_]

FLOAT32_SUFFIX: Final = ".as_float32"

_to_str = np.frompyfunc(bytes.decode, 1, 1)
_to_bytes = np.frompyfunc(str.encode, 1, 1)


def decode_texts(name: str, array: TextArray) -> TextArray:
    """Bytes as text, same shape. Raises UnfitInput, naming the input and the first row that is not UTF-8."""
    try:
        return np.asarray(_to_str(array), np.object_)
    except UnicodeDecodeError:
        row = next(i for i, values in enumerate(array) if not _is_utf8(values))
        raise UnfitInput(f"input {name!r}, row {row}: not UTF-8 text") from None


def _is_utf8(values: TextArray | bytes) -> bool:
    try:
        _to_str(values)
    except UnicodeDecodeError:
        return False
    return True


def encode_texts(array: TextArray) -> TextArray:
    """Text as bytes, same shape."""
    return np.asarray(_to_bytes(array), np.object_)


def with_float32_io(graph: GraphProto) -> frozenset[str]:
    """Makes bfloat16 inputs and outputs float32, in place, with FLOAT32_SUFFIX after their names.

    Order, shapes and everything else are unchanged. Returns the names that they had.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = _to_float32([one for one in graph.input if one.name not in weights])
    outputs = _to_float32(graph.output)
    before = [_cast(f"{name}{FLOAT32_SUFFIX}", name, TensorProto.BFLOAT16) for name in inputs]
    after = [_cast(name, f"{name}{FLOAT32_SUFFIX}", TensorProto.FLOAT) for name in outputs]
    if before or after:
        nodes = [*before, *graph.node, *after]
        del graph.node[:]
        graph.node.extend(nodes)
    return frozenset((*inputs, *outputs))


def _to_float32(values: Sequence[ValueInfoProto]) -> list[str]:
    """Redeclares the bfloat16 values among these as float32 under new names; returns their old names."""
    names: list[str] = []
    for value in values:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            names.append(value.name)
            value.name += FLOAT32_SUFFIX
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return names


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)
