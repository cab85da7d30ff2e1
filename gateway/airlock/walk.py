"""Every graph, node, tensor and name of an ONNX model, those of subgraphs and of functions included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

MOST_NESTED = 8
"""How deep graphs may lie in each other. Exporters nest two or three."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One graph, or the body of a function, with how deep it lies."""

    body: GraphProto | FunctionProto
    depth: int

    @property
    def nodes(self) -> Sequence[NodeProto]:
        return self.body.node

    @property
    def weights(self) -> Sequence[TensorProto]:
        return self.body.initializer if isinstance(self.body, GraphProto) else ()


def scopes(model: ModelProto) -> Iterator[Scope]:
    """The model's graph, its functions, and every graph in them.

    Raises: ValueError (what is wrong, how to mend it) beyond MOST_NESTED.
    """
    waiting = [Scope(model.graph, 0), *(Scope(function, 0) for function in model.functions)]
    while waiting:
        scope = waiting.pop()
        if scope.depth > MOST_NESTED:
            raise ValueError(
                f"nests graphs deeper than {MOST_NESTED}; export a model without nested branches"
            )
        yield scope
        waiting.extend(Scope(inner, scope.depth + 1) for node in scope.nodes for inner in subgraphs(node))


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in one node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def attribute_tensors(node: NodeProto) -> Iterator[TensorProto]:
    """The tensors in one node's attributes, both parts of sparse ones."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for one in (*sparse, *attribute.sparse_tensors):
            yield from (one.values, one.indices)


def scope_tensors(scope: Scope) -> Iterator[tuple[str, TensorProto]]:
    """The weights and constants of one scope, with the name of the value that they are."""
    for tensor in scope.weights:
        yield tensor.name, tensor
    if isinstance(scope.body, GraphProto):
        for sparse in scope.body.sparse_initializer:
            yield from ((sparse.values.name, one) for one in (sparse.values, sparse.indices))
    for node in scope.nodes:
        name = node.output[0] if node.output else node.op_type
        yield from ((name, tensor) for tensor in attribute_tensors(node))
