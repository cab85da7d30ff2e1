"""The class labels that an exported classifier itself names, in the order of its columns.

Converters of scikit-learn and of boosters write them into the node that makes the label. They are used where
they are unambiguous, so that they need not be typed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from fallbacks.onnx_graph import Labels, class_attribute

LABEL_TYPES: Final = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING)
SAME_CLASSES: Final = (
    "Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Normalizer", "Softmax"
)  # fmt: skip
"""Operators whose output stands for the same classes as their first input."""


def class_labels(graph: GraphProto, dropped: Iterable[Labels]) -> Labels | None:
    """The labels, by the first of these that there is; None if there is none, or if two of one sort differ.

    What the ZipMaps named that are `dropped`; what makes an output of whole numbers or text; what makes
    another output. The graph must be one that onnxruntime takes, so without cycles.
    """
    trace = _Trace.of(graph)
    label_outputs = {value.name for value in graph.output if value.type.tensor_type.elem_type in LABEL_TYPES}
    other_outputs = {value.name for value in graph.output} - label_outputs
    for named in (
        set(dropped),
        trace.labels_of(label_outputs),
        trace.labels_of(other_outputs),
    ):
        if found := named - {()}:
            return found.pop() if len(found) == 1 else None
    return None


@dataclass(frozen=True, slots=True)
class _Trace:
    """A graph, followed from its outputs back to the node that names the classes."""

    makers: Mapping[str, NodeProto]
    constants: Mapping[str, TensorProto]

    @classmethod
    def of(cls, graph: GraphProto) -> _Trace:
        constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        return cls({name: node for node in graph.node for name in node.output}, constants)

    def labels_of(self, outputs: Iterable[str]) -> set[Labels]:
        return {self._labels(name) for name in outputs}

    def _labels(self, name: str) -> Labels:
        """The labels behind one value; () if they are unknown."""
        node = self._maker(name)
        if node is None:
            return ()
        if node.op_type == "LabelEncoder":
            return self._encoded(node)
        if node.op_type in ("ArrayFeatureExtractor", "Gather") and self._is_index(node.input[1]):
            return self._entries(node.input[0])
        return () if node.op_type == "ZipMap" else class_attribute(node)

    def _maker(self, name: str) -> NodeProto | None:
        """The node that makes a value, behind those that keep its classes."""
        node = self.makers.get(name)
        while node is not None and node.op_type in SAME_CLASSES and not _makes_text(node):
            node = self.makers.get(node.input[0])
        return node

    def _is_index(self, name: str) -> bool:
        """Whether a value is the number of the largest column."""
        node = self._maker(name)
        return node is not None and node.op_type in ("ArgMax", "TopK")

    def _entries(self, name: str) -> Labels:
        """A constant list of labels."""
        if name not in self.constants or self.constants[name].data_type not in LABEL_TYPES:
            return ()
        return _values(self.constants[name])

    def _encoded(self, node: NodeProto) -> Labels:
        """The labels after a LabelEncoder maps those before it, or the numbers of columns."""
        table = _table(node)
        before = self._labels(node.input[0])
        if not before and self._is_index(node.input[0]):
            before = tuple(range(len(table)))
        return tuple(table[label] for label in before) if set(before) <= table.keys() else ()


def _table(node: NodeProto) -> dict[int | str, int | str]:
    """What a LabelEncoder maps to what; its columns were numbered by `classes_strings` before opset 2."""
    given = {a.name.partition("_")[0]: a for a in node.attribute if not a.name.startswith("default")}
    if "classes" in given:
        return dict(enumerate(text.decode(errors="replace") for text in given["classes"].strings))
    if not {"keys", "values"} <= given.keys():
        return {}
    keys, values = (_listed(helper.get_attribute_value(given[side])) for side in ("keys", "values"))
    return dict(zip(keys, values, strict=False))


def _listed(value: Any) -> Labels:
    return _values(value) if isinstance(value, TensorProto) else tuple(map(_text_or_number, value))


def _values(tensor: TensorProto) -> Labels:
    return tuple(map(_text_or_number, numpy_helper.to_array(tensor).ravel().tolist()))


def _text_or_number(value: Any) -> int | str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _makes_text(node: NodeProto) -> bool:
    return any(a.name == "to" and a.i == TensorProto.STRING for a in node.attribute)
