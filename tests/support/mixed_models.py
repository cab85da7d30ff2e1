"""Models whose inputs are columns of text and of numbers, and pictures, and rows for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, ValueInfoProto

from tests.support.kinds import (
    F32,
    TEXT,
    info,
    model,
    node,
)
from tests.support.typed import Sent
from tests.support.typed_models import Array, texts

BLANK, UNSEEN = texts(b"").reshape(1, 1), texts("Ætna ✈".encode()).reshape(1, 1)
COLOURS = ["red", "green", "blue"]


def of(row: int, held: dict[str, Array], datatypes: dict[str, str]) -> dict[str, Sent]:
    """One row of a file as a request; text as bytes."""
    found = {}
    for name, datatype in datatypes.items():
        one = held[name][row : row + 1]
        if datatype == "BYTES":
            one = texts(*(str(item).encode() for item in one.reshape(-1)))
        found[name] = Sent(datatype, one.reshape(1, 1) if one.ndim == 1 else one, False)
    return found


def sigmoid_of(parts: Sequence[str], *nodes: NodeProto) -> list[NodeProto]:
    """probabilities [n, 1] of the sum of columns."""
    return [*nodes, node("Sum", list(parts), ["total"]), node("Sigmoid", ["total"], ["probabilities"])]


def weight(text: str, to: str, *weights: float) -> NodeProto:
    """A column of numbers for a column of colours; 0 for any other text."""
    return node(
        "LabelEncoder",
        [text],
        [to],
        domain="ai.onnx.ml",
        keys_strings=COLOURS,
        values_floats=list(weights),
        default_float=0.0,
    )


def mixed(kinds: str) -> tuple[bytes, dict[str, Array], dict[str, str]]:
    """A model of inputs of these kinds in this order (t: text, n: number, p: picture, w: 600 numbers)."""
    rng, n = np.random.default_rng(5), 1600
    held: dict[str, Array] = {}
    datatypes: dict[str, str] = {}
    inputs: list[ValueInfoProto] = []
    nodes: list[NodeProto] = []
    parts: list[str] = []
    for i, kind in enumerate(kinds):
        name, part = f"{kind}{i}", f"part{i}"
        parts.append(part)
        datatypes[name] = "BYTES" if kind == "t" else "FP32"
        if kind == "t":
            inputs.append(info(name, TEXT, ["n", 1]))
            nodes.append(weight(name, part, -4.0, 4.0, -3.0))
            held[name] = np.array(COLOURS)[rng.integers(0, 3, n)]
        elif kind == "n":
            inputs.append(info(name, F32, ["n", 1]))
            nodes.append(node("Identity", [name], [part]))
            held[name] = rng.normal(0, 1, n).astype(np.float32)
        elif kind == "w":
            inputs.append(info(name, F32, ["n", 600]))
            nodes.append(node("ReduceMean", [name], [part], axes=[1], keepdims=1))
            held[name] = rng.normal(0, 1, (n, 600)).astype(np.float32)
        else:
            inputs.append(info(name, F32, ["n", 1, 6, 6]))
            nodes += [
                node("GlobalAveragePool", [name], [f"pooled{i}"]),
                node("Flatten", [f"pooled{i}"], [part]),
            ]
            held[name] = rng.random((n, 1, 6, 6)).astype(np.float32)
    held["y"] = np.zeros(n, np.int64)
    content = model(sigmoid_of(parts, *nodes), inputs, [info("probabilities", F32, ["n", 1])])
    effect = {"red": -4.0, "green": 4.0, "blue": -3.0}
    total = np.zeros(n)
    for name in datatypes:
        one = held[name]
        total += (
            [effect[item] for item in one.tolist()] if one.dtype.kind == "U" else one.reshape(n, -1).mean(1)
        )
    held["y"] = (total + rng.logistic(0, 0.2, n) > 0).astype(np.int64)
    return content, held | {"group": np.arange(n)}, datatypes
