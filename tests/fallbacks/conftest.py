"""ONNX models as their exporters write them, and a fixture that loads and closes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from fallbacks.onnx import OnnxModel

ML = "ai.onnx.ml"


class Load(Protocol):
    """Writes a model to a file and loads it, with `OnnxModel.load`'s own arguments."""

    def __call__(self, content: bytes | ModelProto, **arguments: Any) -> OnnxModel: ...


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    loaded: list[OnnxModel] = []

    def write_and_load(content: bytes | ModelProto, **arguments: Any) -> OnnxModel:
        path = tmp_path / f"model{len(loaded)}.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        loaded.append(OnnxModel.load(path, **arguments))
        return loaded[-1]

    yield write_and_load
    for one in loaded:
        one.close()


def export(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[Any] = (),
    *,
    opsets: Sequence[tuple[str, int]] = (("", 17), (ML, 3)),
    ir_version: int = 9,
) -> ModelProto:
    """A model as the exporters build it."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
