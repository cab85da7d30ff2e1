"""What constants and attributes of a graph say: rounds, sizes, whether a loop may end early."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from gateway.airlock.bounds import MOST_NUMBERS

TOO_MANY: Final = 2**62
"""Stands for a number that cannot be read."""


def constant_of(node: NodeProto) -> TensorProto | None:
    """The value of a `Constant` operator; None for one that is no tensor and no integers."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            return attribute.t
        if attribute.type in (AttributeProto.INT, AttributeProto.INTS):
            alone = attribute.type == AttributeProto.INT
            values = [attribute.i] if alone else list(attribute.ints)
            dims = [] if alone else [len(values)]
            return TensorProto(data_type=TensorProto.INT64, dims=dims, int64_data=values)
    return None


def may_end_early(body: GraphProto) -> bool:
    """Whether the condition of a loop is anything but the one it began with, or a constant."""
    if not body.output or len(body.input) < 2:
        return True
    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while (node := makers.get(name)) is not None and node.op_type in ("Identity", "Cast"):
        name = node.input[0]
    constants = {tensor.name for tensor in body.initializer}
    made_here = node is not None and node.op_type != "Constant"
    return made_here and name not in constants


def integer_attribute(node: NodeProto, name: str, default: int) -> int:
    """An attribute's number, or what it is without the attribute."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _numbers(tensor: TensorProto) -> Iterator[int]:
    if math.prod(tensor.dims) > MOST_NUMBERS:
        yield TOO_MANY
        return
    try:
        yield from (int(value) for value in numpy_helper.to_array(tensor).reshape(-1).tolist())
    except (ValueError, TypeError, OverflowError):
        yield TOO_MANY


def most_of(tensor: TensorProto) -> int:
    """The largest number of a constant."""
    return max(_numbers(tensor), default=0)


def product_of(tensor: TensorProto | None) -> int:
    """How many values a tensor of these sizes has; 0 without a constant."""
    if tensor is None:
        return 0
    return math.prod(max(value, 1) for value in _numbers(tensor))
