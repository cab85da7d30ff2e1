"""Names in a model file: whatever is printed, logged or shown to a reviewer holds no control character."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from gateway.airlock.walk import Scope

LONGEST_NAME: Final = 1024
"""Characters. PyTorch names nodes by their path of modules, a few hundred characters."""

CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
"""Control characters, and the invisible ones that hide or reorder text."""

CONTROL_IN_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""The same for texts of several lines, such as a description."""

MEND: Final = "; export it with plain names"


def name_problems(model: ModelProto, scopes: list[Scope]) -> Iterator[str]:
    """What is wrong with the first name and the first text that cannot be shown."""
    for what, names in _names(model, scopes):
        if bad := next((name for name in names if _cannot_be_shown(name)), None):
            yield f"the name of {what} {_cannot_be_shown(bad)}: {_shown(bad)}{MEND}"
            break
    if bad := next((text for text in _texts(model, scopes) if has_control(text, CONTROL_IN_TEXT)), None):
        yield f"a description holds a control character: {_shown(bad)}; export it without descriptions"


def _cannot_be_shown(name: str) -> str:
    """Why a name is refused; empty if it is not."""
    if isinstance(name, bytes):  # protobuf returns a damaged text so
        return "is not UTF-8 text"
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters, over {LONGEST_NAME}"
    return "holds a control character" if has_control(name) else ""


def has_control(text: str, which: re.Pattern[str] = CONTROL) -> bool:
    """Whether a text holds a control character; one that is damaged counts as such."""
    return isinstance(text, bytes) or which.search(text) is not None


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 60 else f"{name[:60]}...")


def _names(model: ModelProto, scopes: list[Scope]) -> Iterator[tuple[str, list[str]]]:
    nodes = [node for scope in scopes for node in scope.nodes]
    yield "the exporter", [model.producer_name, model.producer_version, model.domain]
    yield "its metadata", [entry.key for entry in model.metadata_props]
    yield "a domain", [one.domain for one in model.opset_import]
    yield "an operator", [name for node in nodes for name in (node.op_type, node.domain)]
    yield "a node", [node.name for node in nodes]
    yield "an attribute", [attribute.name for node in nodes for attribute in node.attribute]
    yield "an input or output", [name for value in _values(scopes) for name in (value.name, *_symbols(value))]
    yield "a value", [name for node in nodes for name in (*node.input, *node.output)]
    yield "a weight", [tensor.name for scope in scopes for tensor in scope.weights]
    yield "a graph or function", [scope.body.name for scope in scopes]


def _values(scopes: list[Scope]) -> Iterator[ValueInfoProto]:
    for scope in scopes:
        if isinstance(scope.body, GraphProto):
            yield from (*scope.body.input, *scope.body.output)
        yield from scope.body.value_info


def _symbols(value: ValueInfoProto) -> Iterator[str]:
    yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param)


def _texts(model: ModelProto, scopes: list[Scope]) -> Iterator[str]:
    yield model.doc_string
    yield from (entry.value for entry in model.metadata_props)
    for scope in scopes:
        parts: tuple[GraphProto | FunctionProto | NodeProto, ...] = (scope.body, *scope.nodes)
        yield from (part.doc_string for part in parts)
