"""Columns of a row as a table, and what every preview is made of: numbers, places, printable text."""

from __future__ import annotations

import codecs
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.tensors import Array
from gateway.protocol.contract import TensorSpec
from gateway.serving.review_summary import format_number

MAX_CELLS = 512
MAX_TEXT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row: a number or a text. range: what the policy allows, empty if it does not say.

    place: the number's position in that range, 0 to 1; None without a range, or if it is missing.
    """

    name: str
    value: str
    is_text: bool
    range: str = ""
    place: float | None = None
    stood_out: bool = False


@dataclass(frozen=True, slots=True)
class TablePreview:
    """Several inputs as one table, in their order. left_out: how many columns there are beyond MAX_CELLS."""

    columns: tuple[Column, ...]
    left_out: int = 0
    name: str = ""
    kind: Literal["table"] = "table"


def table_of(
    inputs: Mapping[str, Array], specs: Mapping[str, TensorSpec], standing_out: Collection[str]
) -> TablePreview:
    columns: list[Column] = []
    for input_name, array in inputs.items():
        for i, value in enumerate(array.reshape(-1).tolist()):
            name = input_name if array.size == 1 else f"{input_name}[{i}]"
            odd = stood_out(name, standing_out)
            if isinstance(value, bytes):
                columns.append(Column(printable(name), beginning(value), True, stood_out=odd))
            else:
                columns.append(_number_column(name, value, specs[input_name], odd))
    return TablePreview(tuple(columns[:MAX_CELLS]), max(0, len(columns) - MAX_CELLS))


def stood_out(name: str, standing_out: Collection[str]) -> bool:
    """Whether a value stood out: `x` of one, `x[3]` of several; of a text also as `x: length`."""
    return any(column == name or column.startswith(f"{name}: ") for column in standing_out)


def _number_column(name: str, value: float, spec: TensorSpec, odd: bool) -> Column:
    low, high = spec.low, spec.high
    if low is None or high is None:
        limit = "" if low is None else f"from {format_number(low)}"
        limit = limit if high is None else f"to {format_number(high)}"
        return Column(printable(name), format_number(value), False, limit, None, odd)
    place = places(np.array([value], np.float64), low, high)[0]
    shown = None if math.isnan(place) else round(float(place), 4)
    return Column(
        printable(name),
        format_number(value),
        False,
        f"{format_number(low)} to {format_number(high)}",
        shown,
        odd,
    )


def places(numbers: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Each number's position between `low` and `high`, 0 to 1; NaN if not finite or without a width."""
    width = high / 2 - low / 2  # halves: no overflow
    finite = np.isfinite(numbers)
    places = np.full(numbers.shape, np.nan)
    if width > 0:
        places[finite] = np.clip((numbers[finite] / 2 - low / 2) / width, 0, 1)
    return places


def printable(text: str) -> str:
    """The text with an escape for each character that does not print, so that none can hide text or reverse
    its direction; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def beginning(item: bytes) -> str:
    """The beginning of a text. Bytes that are not UTF-8 become escapes."""
    whole = len(item) <= MAX_TEXT_BYTES
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    shown = printable(decoder.decode(item[:MAX_TEXT_BYTES], final=whole))
    return shown if whole else f"{shown}… ({len(item)} bytes in all)"
