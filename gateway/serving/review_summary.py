"""What the review queue shows of a case without reading its row: the row's beginning, and a model's view.

Both are stored with the case as JSON, bounded, because a row may have megabytes and the queue lists many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.tensors import Array
from fallbacks.roles import LABEL, LOWER, PROBABILITIES, UPPER, VALUE
from gateway.core.decision import Tensors

MAX_SUGGESTIONS = 3
MAX_COLUMNS, MAX_NUMBERS = 8, 6
MAX_NAME, MAX_TEXT, MAX_ONLY_TEXT = 40, 48, 160
"""Characters that are kept of a column's name, of a text, and of a text that is the only input."""


def brief(inputs: Mapping[str, Array]) -> str:
    """The beginning of a row as one line: `age 41, plan gold, … 3 more`; a text alone without its name.

    inputs: one row each. Tensors of more than two axes, such as pictures, are left out. Bytes that are not
    UTF-8 become escapes. At most about 800 characters. Cost: independent of the row's size.
    """
    columns = [(name, array) for name, array in inputs.items() if array.ndim <= 2 and array.size]
    if len(inputs) == 1 and columns and columns[0][1].dtype.kind == "O":
        return _text_of(columns[0][1], MAX_ONLY_TEXT)
    parts = [f"{name[:MAX_NAME]} {_beginning(array)}" for name, array in columns[:MAX_COLUMNS]]
    left_out = len(columns) - len(parts)
    return ", ".join([*parts, f"… {left_out} more"] if left_out else parts)


def _beginning(array: Array) -> str:
    if array.dtype.kind == "O":
        return _text_of(array, MAX_TEXT)
    shown = " ".join(format_number(value) for value in array.reshape(-1)[:MAX_NUMBERS].tolist())
    return shown if array.size <= MAX_NUMBERS else f"{shown} … ({array.size} numbers)"


def _text_of(array: Array, most: int) -> str:
    """The beginning of the first text, in one line."""
    item: bytes = array.reshape(-1)[0]
    line = " ".join(item[: 4 * most].decode("utf-8", "backslashreplace").split())
    cut = line if len(line) <= most and len(item) <= 4 * most else line[:most] + "…"
    return cut if array.size == 1 else f"{cut} ({array.size} texts)"


def format_number(value: float) -> str:
    """A number as reviewers read it: whole ones below 1e15 to the last digit, others to six significant ones.

    NaN is a missing value.
    """
    if isinstance(value, int):
        return f"{value:d}"
    if math.isnan(value):
        return "missing"
    return f"{value + 0.0:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def model_view(suggestion: Tensors | None) -> Any:
    """What a model would have answered, for JSON; an empty list if it has no view.

    [[class, probability], ...] of the likeliest classes; or {"value": x, "lower": x, "upper": x}, of which
    `value` is always there; or {"label": text or integer}, of a model that gives labels alone.
    """
    outputs: Tensors = {} if suggestion is None else suggestion
    if PROBABILITIES in outputs and outputs[PROBABILITIES].dtype.kind == "f":
        return _likeliest_classes(outputs[PROBABILITIES])
    numbers = {name: _number(outputs[name]) for name in (VALUE, LOWER, UPPER) if name in outputs}
    if numbers.get(VALUE) is not None:
        return {name: number for name, number in numbers.items() if number is not None}
    if LABEL in outputs and outputs[LABEL].size == 1:
        label = outputs[LABEL].reshape(-1).tolist()[0]
        return {"label": label_text(label) if isinstance(label, bytes) else label}
    return []


def label_text(label: bytes) -> str:
    """A label of bytes as text, bounded; bytes that are not UTF-8 become escapes."""
    return label[: 4 * MAX_TEXT].decode("utf-8", "backslashreplace")[:MAX_TEXT]


def _likeliest_classes(probabilities: NDArray[Any]) -> list[list[float]]:
    p = probabilities.reshape(-1)
    best = np.argsort(-p, kind="stable")[:MAX_SUGGESTIONS]
    return [[int(i), round(float(p[i]), 4)] for i in best]


def _number(array: Array) -> float | None:
    """The one number of an output; None if it has several or none, or is not finite."""
    if array.size != 1 or array.dtype.kind not in "iuf":
        return None
    number = float(array.reshape(-1)[0])
    return number if math.isfinite(number) else None
