"""What is wrong with an ONNX model before onnxruntime opens it: pure, and linear in the model's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto
from onnx.inliner import inline_local_functions

from gateway.airlock.graph_values import integer_attribute, most_of
from gateway.airlock.growth import growth_problems
from gateway.airlock.names import name_problems
from gateway.airlock.operators import ALLOWED, OLDEST_IR, OLDEST_OPSET, domain_of
from gateway.airlock.tensors import tensor_problems
from gateway.airlock.walk import Scope, scope_tensors, scopes

MOST_NODES: Final = 50_000
MOST_ROW_VALUES: Final = 8 * 2**20
"""As many values of a byte each as the largest body of a request has bytes."""
MOST_AXES: Final = 8
OPEN_AXIS: Final = -1
"""As PaddlePaddle's exporter declares an axis of any size."""
MOST_UNKNOWN_BYTES: Final = 65_536
"""Of fields that a later ONNX may have added, which are ignored."""
_OWN = "; export it with ONNX's own"


def static_problems(model: ModelProto) -> list[str]:
    """Every problem found, in words that say how to mend it; empty for a model that may be opened.

    The checks of growth are made only for a model without another problem.
    """
    try:
        found = list(scopes(model))
    except ValueError as error:
        return [str(error)]
    problems = [
        *name_problems(model, found),
        *_format_problems(model),
        *_count_problems(model, found),
        *_operator_problems(model, found),
        *_training_problems(found),
        *tensor_problems(found),
        *_declaration_problems(model.graph),
        *_duplicates(found),
    ]
    return problems or growth_problems(_inlined(model).graph)


def _format_problems(model: ModelProto) -> Iterator[str]:
    if model.ir_version < OLDEST_IR:
        yield f"has IR version {model.ir_version}, below {OLDEST_IR}; export it again with a current exporter"
    for one in model.opset_import:
        oldest = OLDEST_OPSET.get(domain_of(one.domain), 0)
        if one.version < oldest:
            what = f"has opset {one.version} of {domain_of(one.domain) or 'ai.onnx'}, below {oldest}"
            yield f"{what}; export it with a newer opset (opset_version, target_opset)"
    known = ModelProto()
    known.CopyFrom(model)
    known.DiscardUnknownFields()
    if (unknown := model.ByteSize() - known.ByteSize()) > MOST_UNKNOWN_BYTES:
        what = f"holds {unknown} bytes in fields that ONNX does not know, over {MOST_UNKNOWN_BYTES}"
        yield f"{what}; export it again with a current exporter"


def _count_problems(model: ModelProto, found: list[Scope]) -> Iterator[str]:
    nodes = sum(len(scope.nodes) for scope in found)
    if nodes <= MOST_NODES and model.functions:
        nodes = _inlined_nodes(model)
    if nodes > MOST_NODES:
        yield f"has {nodes} operators, over {MOST_NODES}; export a smaller model"


def _inlined_nodes(model: ModelProto) -> int:
    """How many nodes there are once functions are inlined; MOST_NODES + 1 if one calls itself."""
    functions = {(domain_of(one.domain), one.name): one for one in model.functions}
    known: dict[tuple[str, str], int] = {}

    def count(body: GraphProto | FunctionProto, path: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in _all_nodes(body):
            called = (domain_of(node.domain), node.op_type)
            if called in path:
                return MOST_NODES + 1
            if called in functions and called not in known:
                known[called] = count(functions[called], (*path, called))
            total += known.get(called, 1)
            if total > MOST_NODES:
                return total
        return total

    return count(model.graph, ())


def _all_nodes(body: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    for node in body.node:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph)


def _operator_problems(model: ModelProto, found: list[Scope]) -> Iterator[str]:
    """Each operator that is not allowed once."""
    own = {(domain_of(one.domain), one.name) for one in model.functions}
    seen: set[tuple[str, str]] = set()
    for scope in found:
        for node in scope.nodes:
            kind = (domain_of(node.domain), node.op_type)
            if kind in own or kind in seen or kind[1] in ALLOWED.get(kind[0], ()):
                continue
            seen.add(kind)
            yield _refused_operator(*kind)


def _training_problems(found: list[Scope]) -> Iterator[str]:
    """Operators that act as in training: they drop values at random, or look at the whole batch."""
    nodes = [node for scope in found for node in scope.nodes]
    modes = {node.input[2] for node in nodes if node.op_type == "Dropout" and len(node.input) > 2} - {""}
    if modes:
        named = [one for scope in found for one in scope_tensors(scope) if one[0] in modes]
        modes -= {name for name, tensor in named if not most_of(tensor)}
    for node in nodes:
        if not modes.isdisjoint(node.input[2:3]) or integer_attribute(node, "training_mode", 0):
            yield f"the operator {node.op_type} is in training mode; export the model for inference"
            return


def _refused_operator(domain: str, kind: str) -> str:
    if domain in OLDEST_OPSET:
        what = f"uses the operator {ascii(kind)[1:-1]}, which is not served (random, training, unknown)"
        return f"{what}; export the model for inference"
    what = f"uses the operator {ascii(kind)[1:-1]} of the domain {domain!a}, "
    what += "and operators of another domain are not loaded"
    runtime = " and without onnxruntime's optimisation" if domain.startswith("com.microsoft") else ""
    return what + _OWN + runtime


def _declaration_problems(graph: GraphProto) -> Iterator[str]:
    """Inputs whose declared sizes cannot be served."""
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in weights and (what := _declared_wrong(value)):
            yield f"declares the input {value.name!r} {what}; export it with the sizes of one row"


def _declared_wrong(value: ValueInfoProto) -> str:
    """What is wrong with the declared shape of an input; empty if nothing is."""
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value for dim in dims if dim.HasField("dim_value")]
    if len(dims) > MOST_AXES:
        return f"with {len(dims)} axes, over {MOST_AXES}"
    if wrong := [size for size in sizes if size < OPEN_AXIS]:
        return f"with an axis of {wrong[0]}"
    row = [dim.dim_value for dim in dims[1:] if dim.HasField("dim_value") and dim.dim_value != OPEN_AXIS]
    if 0 in row:
        return "with an axis of 0"
    if math.prod(row) > MOST_ROW_VALUES:
        return f"with {math.prod(row)} values a row, over {MOST_ROW_VALUES}"
    return ""


def _duplicates(found: list[Scope]) -> Iterator[str]:
    """Two values of one name in one graph."""
    for scope in found:
        for what, names in _named(scope):
            if twice := _first_twice(names):
                yield f"has two {what} named {twice!r}; the file is damaged, export it again"


def _named(scope: Scope) -> Iterator[tuple[str, list[str]]]:
    if isinstance(scope.body, GraphProto):
        yield "inputs", [value.name for value in scope.body.input]
        yield "outputs", [value.name for value in scope.body.output]
    yield "weights", [tensor.name for tensor in scope.weights]
    yield "results", [name for node in scope.nodes for name in node.output if name]


def _first_twice(names: list[str]) -> str:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return next((name for name, times in seen.items() if times > 1), "")


def _inlined(model: ModelProto) -> ModelProto:
    return inline_local_functions(model) if model.functions else model
