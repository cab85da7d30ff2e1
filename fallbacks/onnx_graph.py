"""Changes to an exported graph before it is loaded, and what its nodes tell of its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from onnx import GraphProto, NodeProto, TensorProto, helper

ML_DOMAIN: Final = "ai.onnx.ml"
NMS: Final = "NonMaxSuppression"

Labels: TypeAlias = tuple[int | str, ...]


def drop_zipmaps(graph: GraphProto) -> tuple[Labels, ...]:
    """Makes each output of a ZipMap the float tensor [n, classes] that the ZipMap takes, in place.

    scikit-learn's converter and others end a classifier in a ZipMap, which makes a list of dictionaries of
    the tensor. The outputs keep their names and their order. A ZipMap that feeds another node stays.
    Returns the classes that each of them names.
    """
    outputs = {value.name for value in graph.output}
    outputs -= {name for node in graph.node for name in node.input}
    dropped = []
    for node in graph.node:
        if node.domain == ML_DOMAIN and node.op_type == "ZipMap" and outputs.issuperset(node.output):
            dropped.append(labels := class_attribute(node))
            for value in graph.output:
                if value.name in node.output:
                    tensor = helper.make_tensor_value_info("", TensorProto.FLOAT, [None, len(labels) or None])
                    value.type.CopyFrom(tensor.type)
            # A Cast, since some exporters give a ZipMap float64 against its definition.
            cast = helper.make_node("Cast", node.input, node.output, node.name, to=TensorProto.FLOAT)
            node.CopyFrom(cast)
    return tuple(dropped)


def drop_locale(graph: GraphProto) -> bool:
    """Makes text operators that ask for US English, the exporters' default, run without it, in place.

    Small containers do not have it, and C.UTF-8 knows the same letters. Returns whether there were any.
    """
    changed = False
    for node in graph.node:
        if node.op_type == "StringNormalizer":
            locale = [attribute for attribute in node.attribute if attribute.name == "locale"]
            if not locale or locale[0].s.startswith((b"en_US", b"en-US")):
                others = [attribute for attribute in node.attribute if attribute.name != "locale"]
                del node.attribute[:]
                node.attribute.extend([*others, helper.make_attribute("locale", "C.UTF-8")])
                changed = True
    return changed


def class_attribute(node: NodeProto) -> Labels:
    """The class labels that a ZipMap or a classifier names, in the order of its columns; () if none."""
    for attribute in node.attribute:
        if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
            return tuple(attribute.ints)
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(text.decode(errors="replace") for text in attribute.strings)
    return ()


def detections(graph: GraphProto) -> frozenset[str]:
    """The outputs that depend on a non-maximum suppression: as many rows as it found objects."""
    reached: set[str] = set()
    for node in graph.node:  # in the order in which they run
        if node.op_type == NMS or not reached.isdisjoint(_reads(node)):
            reached.update(node.output)
    return frozenset(value.name for value in graph.output if value.name in reached)


def _reads(node: NodeProto) -> Iterator[str]:
    """The values that a node reads, also within its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
