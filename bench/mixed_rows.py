"""A table of many kinds of columns, and a classifier of it of the form that scikit-learn's pipelines export.

Every column is an input [n, 1] of its own datatype. The graph fills missing numbers with the mean, scales,
encodes categories one-hot, and ends in a logistic regression with the outputs `output_label` and
`output_probability`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Inputs: TypeAlias = Mapping[str, NDArray[Any]]

CATEGORIES = {"plan": 3, "country": 12}
MISSING, MISSING_SHARE = "balance", 0.08
UNSEEN = b"unseen"
ELEMENTS = {"f4": TensorProto.FLOAT, "f8": TensorProto.DOUBLE, "i8": TensorProto.INT64}
SCALES = {
    "age": (50, 20),
    "tenure": (100, 20),
    "income": (23_000, 8_000),
    "balance": (0, 50),
    "purchases": (3, 2),
    "visits": (40, 6),
    "active": (0, 1),
    "disputed": (0, 1),
    "celsius": (20, 5),
    "fahrenheit": (68, 9),
    "version": (7, 1),
}
"""What the model takes for the mean and the deviation of each number."""


def rows(n: int, rng: np.random.Generator) -> Inputs:
    """Good rows: whole numbers, counts, flags, normal and log-normal ones, two tied ones, a constant."""
    celsius = rng.normal(20, 5, n)
    missing = rng.random(n) < MISSING_SHARE
    numbers: dict[str, NDArray[Any]] = {
        "age": rng.integers(18, 90, n),
        "tenure": rng.normal(100, 20, n).astype(np.float32),
        "income": rng.lognormal(10, 0.35, n).astype(np.float32),
        MISSING: np.where(missing, np.nan, rng.normal(0, 50, n)),
        "purchases": rng.poisson(3, n),
        "visits": rng.poisson(40, n),
        "active": (rng.random(n) < 0.4).astype(np.int64),
        "disputed": (rng.random(n) < 0.03).astype(np.int64),
        "celsius": celsius.astype(np.float32),
        "fahrenheit": (1.8 * celsius + 32).astype(np.float32),
        "version": np.full(n, 7, np.float32),
    }
    texts = {name: _categories(name, k, n, rng) for name, k in CATEGORIES.items()}
    return {name: column[:, None] for name, column in (numbers | texts).items()}


def _categories(name: str, k: int, n: int, rng: np.random.Generator) -> NDArray[Any]:
    """object[n] of bytes: the next category is three quarters as frequent."""
    share = 0.75 ** np.arange(k)
    known = np.array(_names(name, k), object)
    return known[rng.choice(k, n, p=share / share.sum())]


def _names(name: str, k: int) -> list[bytes]:
    return [f"{name} {i}".encode() for i in range(k)]


def planted(column: NDArray[Any], side: float) -> NDArray[Any]:
    """The column with an outlier in every row: ten robust sigmas from the median, or an unseen category.

    A robust sigma is 1.4826 median absolute deviations, or the standard deviation where that is 0, or 1 for a
    constant. Outliers among whole numbers are whole, rounded away from the median.
    """
    if column.dtype == object:
        return np.full(column.shape, UNSEEN, object)
    known = column[np.isfinite(column)].astype(np.float64)
    median = np.median(known)
    sigma = 1.4826 * np.median(np.abs(known - median)) or known.std() or 1.0
    value = median + side * 10 * sigma
    whole = bool((known == np.rint(known)).all())
    return np.full(column.shape, side * np.ceil(side * value) if whole else value, column.dtype)


def model(seed: int) -> bytes:
    """The classifier as an ONNX file: two classes, its weights drawn with the seed."""
    some, rng = rows(2, np.random.default_rng(0)), np.random.default_rng(seed)
    width = len(SCALES) + sum(CATEGORIES.values())
    mean, scale = (np.array(one, np.float32) for one in zip(*SCALES.values(), strict=True))
    weights = {
        "mean": mean,
        "scale": scale,
        "w": rng.normal(0, 1.2, (width, 1)).astype(np.float32),
        "b": np.zeros(1, np.float32),
        "one": np.ones(1, np.float32),
    }
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    inputs = [
        helper.make_tensor_value_info(name, _element(column), [None, 1]) for name, column in some.items()
    ]
    outputs = [
        helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("output_probability", TensorProto.FLOAT, [None, 2]),
    ]
    graph = helper.make_graph(_nodes(), "pipeline", inputs, outputs, held)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString())


def _element(column: NDArray[Any]) -> int:
    return TensorProto.STRING if column.dtype == object else ELEMENTS[column.dtype.str[1:]]


def _nodes() -> Sequence[NodeProto]:
    node = helper.make_node
    numbers = [f"{name}_float" for name in SCALES]
    encoded = [f"{name}_encoded" for name in CATEGORIES]
    casts = [node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in SCALES]
    return [
        *casts,
        node("Concat", numbers, ["numbers"], axis=1),
        node("IsNaN", ["numbers"], ["missing"]),
        node("Where", ["missing", "mean", "numbers"], ["filled"]),
        node("Sub", ["filled", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["scaled"]),
        *(one for name, k in CATEGORIES.items() for one in _one_hot(name, k)),
        node("Concat", ["scaled", *encoded], ["features"], axis=1),
        node("Gemm", ["features", "w", "b"], ["logit"]),
        node("Sigmoid", ["logit"], ["p1"]),
        node("Sub", ["one", "p1"], ["p0"]),
        node("Concat", ["p0", "p1"], ["output_probability"], axis=1),
        node("ArgMax", ["output_probability"], ["output_label"], axis=1, keepdims=0),
    ]


def _one_hot(name: str, k: int) -> Sequence[NodeProto]:
    known = [one.decode() for one in _names(name, k)]
    return [
        helper.make_node(
            "OneHotEncoder", [name], [f"{name}_cube"], domain="ai.onnx.ml", cats_strings=known, zeros=1
        ),
        helper.make_node("Flatten", [f"{name}_cube"], [f"{name}_encoded"], axis=1),
    ]
