"""Which inputs of a graph are read as indices, sizes or divisors, and the range that its tables imply.

Such a graph takes few of the values that its input's type has: onnxruntime refuses the others, row by row, at
the cost of a pass, or runs for as long as a row says. With a stated range they are refused before any model.

An input is followed through operators that keep its values, or add a constant to all of them, to an operator
that reads them as an index. What is computed otherwise is not followed: a clipped or looked-up index is safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

KEEPS_VALUES: Final = frozenset(
    [
        "Identity",
        "Cast",
        "Squeeze",
        "Unsqueeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Expand",
        "Tile",
        "Concat",
        "Dropout",
    ]
)
TAKES_SOME: Final = frozenset(
    ["Slice", "Gather", "GatherElements", "GatherND", "Split", "ArrayFeatureExtractor", "ReduceMax"]
)
"""Operators whose result has some values of their first input: a range for all of them is not implied."""
INDEX_AT: Final = {
    "Gather": 1,
    "GatherElements": 1,
    "GatherND": 1,
    "ScatterElements": 1,
    "ScatterND": 1,
    "ArrayFeatureExtractor": 1,
}
"""The position of the indices among an operator's inputs."""
SIZE_AT: Final = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Slice": (1, 2, 3, 4),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Resize": (2, 3),
    "Split": (1,),
    "Loop": (0,),
    "SequenceAt": (1,),
    "ReverseSequence": (1,),
    "Div": (1,),
    "Mod": (1,),
}
"""The positions of sizes, counts, bounds and divisors."""
INTEGERS: Final = frozenset(
    TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)
LARGEST_CONSTANT: Final = 4096
"""Bytes of a constant that is read for its values."""


@dataclass(frozen=True, slots=True)
class IndexUse:
    """How an input is read: by which operator, and the values that it takes; None where not implied."""

    operator: str
    low: int | None = None
    high: int | None = None

    def narrower(self, other: IndexUse) -> IndexUse:
        """The range that both imply, or that one of them does."""
        if self.high is None or other.high is None or self.low is None or other.low is None:
            return self if self.high is not None else other
        return IndexUse(self.operator, max(self.low, other.low), min(self.high, other.high))


class _Source(NamedTuple):
    """Where values come from: an input, plus a constant; whole: all its values, not some of them."""

    input: str
    added: int = 0
    whole: bool = True


def index_uses(graph: GraphProto) -> dict[str, IndexUse]:
    """How each input is read that is an index, a size or an integer divisor; of several uses, the narrowest.

    Cost: one walk over the nodes; weights are not read.
    """
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    integers = {value.name for value in inputs if value.type.tensor_type.elem_type in INTEGERS}
    found: dict[str, IndexUse] = {}
    for name, use in _uses(graph, _Names({value.name: (_Source(value.name),) for value in inputs}, {}, {})):
        if use.operator not in ("Div", "Mod") or name in integers:
            found[name] = found[name].narrower(use) if name in found else use
    return found


class _Names(NamedTuple):
    """What is known of the values that a graph can name: sources, shapes, and numbers where all are one."""

    sources: Mapping[str, tuple[_Source, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, int]


def _uses(graph: GraphProto, outer: _Names) -> Iterator[tuple[str, IndexUse]]:
    """Every use in a graph, and in the graphs in it, which see the names around them."""
    sources, shapes, numbers = dict(outer.sources), dict(outer.shapes), dict(outer.numbers)
    names = _Names(sources, shapes, numbers)
    constants = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            constants += [(node.output[0], one.t) for one in node.attribute if one.name == "value"]
    for name, tensor in constants:
        shapes[name] = tuple(tensor.dims)
        if (number := _one_number(tensor)) is not None:
            numbers[name] = number
    for node in graph.node:
        yield from _uses_of(node, names)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _uses(inner, names)
        if passed_on := _sources_of(node, names):
            sources.update(dict.fromkeys(node.output, passed_on))


def _uses_of(node: NodeProto, names: _Names) -> Iterator[tuple[str, IndexUse]]:
    at = INDEX_AT.get(node.op_type, len(node.input))
    for source in names.sources.get(node.input[at], ()) if at < len(node.input) else ():
        rows = _rows_of_table(node, names.shapes.get(node.input[0]))
        if rows is None or not source.whole:
            yield source.input, IndexUse(node.op_type)
        else:
            yield source.input, IndexUse(node.op_type, -source.added, rows - 1 - source.added)
    for at in SIZE_AT.get(node.op_type, ()):
        for source in names.sources.get(node.input[at], ()) if at < len(node.input) else ():
            yield source.input, IndexUse(node.op_type)


def _rows_of_table(node: NodeProto, shape: tuple[int, ...] | None) -> int | None:
    """How many entries the table has along the axis that is indexed; None if unknown, or several axes are."""
    if not shape:
        return None
    if node.op_type in ("GatherND", "ScatterND"):
        return shape[0] if len(shape) == 1 else None
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return shape[-1 if node.op_type == "ArrayFeatureExtractor" else axes[0] if axes else 0]


def _sources_of(node: NodeProto, names: _Names) -> tuple[_Source, ...]:
    """Where a node's result comes from, if it has the values of inputs."""
    read = [names.sources.get(name, ()) for name in node.input]
    if node.op_type in KEEPS_VALUES:
        return tuple(dict.fromkeys(source for sources in read for source in sources))
    if node.op_type in TAKES_SOME:
        return tuple(source._replace(whole=False) for source in read[0])
    if node.op_type in ("Add", "Sub") and (read[0] or (node.op_type == "Add" and read[1])):
        number = names.numbers.get(node.input[1 if read[0] else 0])
        if number is None:  # an offset for each column, as of several tables in one
            return tuple(source._replace(whole=False) for source in (*read[0], *read[1]))
        added = number if node.op_type == "Add" else -number
        return tuple(source._replace(added=source.added + added) for source in read[0] or read[1])
    return ()


def _one_number(tensor: TensorProto) -> int | None:
    """The whole number that all values of a small constant are."""
    if tensor.data_type == TensorProto.STRING or tensor.ByteSize() > LARGEST_CONSTANT:
        return None
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "iuf" or not array.size or (array != array.flat[0]).any():
        return None
    return int(array.flat[0]) if float(array.flat[0]).is_integer() else None
