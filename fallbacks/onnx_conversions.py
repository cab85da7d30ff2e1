"""What numpy has no dtype for, at the edges of a model: text, and bfloat16.

Text. On the wire it is bytes; onnxruntime takes `str`. It would take bytes too, without a word, as what
Python prints of them (`b'a'`), and reads past the end of numpy's own byte strings: so nothing but `str` gets
there. Both ways are exact, NUL included; bytes that are not UTF-8 are the fault of the row.

bfloat16. In numpy it is a float32 whose low sixteen bits are zero. onnxruntime gives no such output to
Python at all, and takes such inputs only where no input is text. So the graph itself is given a Cast at each
such edge: both are exact, for any mix of types, and the model still runs in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from fallbacks.predictor import UnfitInput

Texts: TypeAlias = NDArray[np.object_]

FLOAT32_SUFFIX: Final = ".as_float32"

_to_str = np.frompyfunc(bytes.decode, 1, 1)
_to_bytes = np.frompyfunc(str.encode, 1, 1)


def texts(name: str, array: Texts) -> Texts:
    """Bytes as text, same shape. Raises UnfitInput, naming the input, where they are not UTF-8."""
    try:
        return np.asarray(_to_str(array), np.object_)
    except UnicodeDecodeError:
        raise UnfitInput(f"input {name!r}: holds bytes that are not UTF-8 text") from None


def octets(array: Texts) -> Texts:
    """Text as bytes, same shape."""
    return np.asarray(_to_bytes(array), np.object_)


def with_float32_io(content: bytes) -> bytes:
    """An ONNX file whose bfloat16 inputs and outputs are float32, under names of their own.

    Order, shapes and everything else stay. Raises ValueError if the bytes are no ONNX file.
    Cost:   the file in memory twice more, for a moment.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise ValueError(f"not an ONNX file: {error}") from error
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    taken = [one for one in graph.input if one.name not in weights]
    before = [_cast(f"{name}{FLOAT32_SUFFIX}", name, TensorProto.BFLOAT16) for name in _turned(taken)]
    after = [_cast(name, f"{name}{FLOAT32_SUFFIX}", TensorProto.FLOAT) for name in _turned(graph.output)]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.SerializeToString()


def _turned(edges: Sequence[ValueInfoProto]) -> list[str]:
    """Declares the edges of bfloat16 as float32 under their new names; the names that they had."""
    names: list[str] = []
    for one in edges:
        if one.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            names.append(one.name)
            one.name += FLOAT32_SUFFIX
            one.type.tensor_type.elem_type = TensorProto.FLOAT
    return names


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)
