"""From the bytes of an exported file to a session: the graph changed where exporters need it, and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnxruntime

from fallbacks.onnx_classes import class_labels
from fallbacks.onnx_conversions import with_float32_io
from fallbacks.onnx_file import open_session
from fallbacks.onnx_graph import Labels, detections, drop_locale, drop_zipmaps
from fallbacks.onnx_indices import IndexUse, index_uses
from fallbacks.onnx_parse import parse
from fallbacks.onnx_signature import Signature, require_shapes


@dataclass(frozen=True, slots=True, eq=False)
class LoadedGraph:
    """A session, what it takes and gives, the class labels in its graph, and inputs read as indices."""

    session: onnxruntime.InferenceSession
    signature: Signature
    classes: Labels | None
    index_uses: Mapping[str, IndexUse]


def load_graph(file: str, content: bytes, threads: int) -> LoadedGraph:
    """Loads a model without running it.

    Raises: ValueError (file, what is wrong, how to mend it) for bytes that cannot be served.
    """
    try:
        return _load(file, content, threads)
    except UnicodeDecodeError as error:
        what = "holds a name that is not UTF-8 text, so it is damaged; copy or export it again"
        raise ValueError(f"{file}: {what}") from error


def _load(file: str, content: bytes, threads: int) -> LoadedGraph:
    model = parse(file, content)
    detected = detections(model.graph)
    zipmaps, locale = drop_zipmaps(model.graph), drop_locale(model.graph)
    bf16 = with_float32_io(model.graph)
    changed = bool(zipmaps or locale or bf16)
    session = open_session(file, model.SerializeToString() if changed else content, threads)
    require_shapes(file, model.graph, session)
    signature = Signature.of(file, session, bf16, detected)
    graph = model.graph
    return LoadedGraph(
        session,
        signature,
        class_labels(graph, zipmaps),
        index_uses(graph),
    )
