"""What the bytes of a model file are: an ONNX graph with its weights inside, or else which other thing.

Exporters, downloads and version control leave many files under the name `model.onnx`. Each needs another
mend, so each is named for what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import onnx
from onnx import GraphProto, ModelProto, TensorProto

BEGINS_LIKE_ONNX: Final = re.compile(rb"\x08[\x01-\x20]")
"""The first field, `ir_version`, and a small number."""

OTHER_FILES: Final = (
    (rb"version https://git-lfs", "a git-lfs pointer, not the model", "run `git lfs pull`"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page", "download the file itself, by its raw link"),
    (rb"PK\x03\x04", "a zip archive, as PyTorch, Keras and numpy write", "export the model to ONNX"),
    (rb"\x80[\x02-\x05]", "a pickle, as scikit-learn writes", "convert the model with skl2onnx"),
    (rb"x[\x01\x5e\x9c\xda]", "compressed with zlib, as joblib writes", "convert the model with skl2onnx"),
    (rb"\x1f\x8b", "compressed with gzip", "unpack it"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes", "export the model with tf2onnx"),
    (rb".{4}TFL3", "a TensorFlow Lite file", "export the model with tf2onnx"),
    (rb".{4}ORTM", "a file in onnxruntime's own format", "give the .onnx file that it was made from"),
    (rb"GGUF", "a GGUF file", "export the model to ONNX"),
    (rb".{8}\{\"", "a safetensors file: weights without a graph", "export the model to ONNX"),
    (rb"tree\n|\s*\{", "a model as text or JSON, as boosters write", "convert it with onnxmltools"),
)


def parse(file: str, content: bytes) -> ModelProto:
    """The model in these bytes.

    Raises: ValueError (file, what the bytes are, how to mend it) if they are no ONNX model, or one whose
            weights lie in other files.
    Cost:   the file in memory once more.
    """
    if not content:
        raise ValueError(f"{file}: the file is empty; copy or export it again")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise ValueError(f"{file}: {_what_else(content)}") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ValueError(f"{file}: {_what_else(content)}")
    if outside := sorted(set(_outside(model))):
        raise ValueError(
            f"{file}: keeps weights in another file ({outside[0]!r}), which is not loaded; export one file "
            f"with its weights inside: onnx.save(onnx.load({file!r}), 'one.onnx')"
        )
    return model


def _what_else(content: bytes) -> str:
    """What bytes are that do not parse as a whole ONNX model, and the mend."""
    if BEGINS_LIKE_ONNX.match(content):
        return f"the file is cut short or damaged at {len(content)} bytes; copy or download it again"
    for pattern, what, mend in OTHER_FILES:
        if re.match(pattern, content[:512], re.DOTALL | re.IGNORECASE):
            return f"not an ONNX file but {what}; {mend}"
    return f"not an ONNX file: it begins with {content[:16]!r}; export the model to ONNX"


def _outside(model: ModelProto) -> Iterator[str]:
    """Where the tensors lie that are not in the file."""
    nodes = [node for function in model.functions for node in function.node]
    for tensor in (*_tensors(model.graph), *_tensors(GraphProto(node=nodes))):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
