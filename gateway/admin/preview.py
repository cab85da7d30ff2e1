"""How a case is shown to its reviewer: pictures, tables of columns, rows of numbers, text.

A case's input was written by a caller, perhaps to harm the reviewer. So none of it is passed on unchanged:
pixels are numbers, clipped and encoded here as PNG; cells are numbers, formatted here; text keeps its
printable characters, and the page escapes it; the rest is a summary. Sizes are bounded before encoding.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from fallbacks.oip.tensors import Array
from gateway.admin.pictures import channels_last, is_picture
from gateway.admin.table import MAX_CELLS, TablePreview, beginning, places, stood_out, table_of
from gateway.protocol.contract import Contract, TensorSpec
from gateway.serving.review_summary import format_number

MAX_TEXTS = 32
MAX_COLUMNS = 16
"""An input of more numbers is shown by itself, not as columns of the table."""
_NO_SPEC = TensorSpec("", np.dtype(np.float32), (None,))


@dataclass(frozen=True, slots=True)
class PicturePreview:
    """An input that is a picture; its pixels are a resource of their own. Sizes in pixels, as sent."""

    name: str
    width: int
    height: int
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of an input. place: its position in the range, 0 to 1; None if it is not finite.

    stood_out: whether it differs most from the calibration rows.
    """

    index: int
    value: str
    place: float | None
    stood_out: bool = False


@dataclass(frozen=True, slots=True)
class NumbersPreview:
    """An input of up to MAX_CELLS numbers in a row, between `low` and `high`."""

    name: str
    low: str
    high: str
    cells: tuple[Cell, ...]
    kind: Literal["row"] = "row"


@dataclass(frozen=True, slots=True)
class TextPreview:
    """An input of text. `left_out`: how many texts there are beyond `parts`."""

    name: str
    parts: tuple[str, ...]
    left_out: int = 0
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class SummaryPreview:
    """An input of any other form."""

    name: str
    facts: Mapping[str, str]
    kind: Literal["summary"] = "summary"


Preview: TypeAlias = PicturePreview | NumbersPreview | TablePreview | TextPreview | SummaryPreview


def previews(
    inputs: Mapping[str, Array], contract: Contract, standing_out: Collection[str] = ()
) -> list[Preview]:
    """The previews of one case's inputs, whose arrays have one row each.

    First a table of all columns, if several inputs are columns: one text or up to MAX_COLUMNS numbers each.
    standing_out: the names of the columns that stood out, as `guards.table.Table.columns` has them.
    """
    specs = {name: contract.inputs_by_name.get(name, _NO_SPEC) for name in inputs}
    columns = {
        name: array for name, array in inputs.items() if _is_text(array) or _is_numbers(array, MAX_COLUMNS)
    }
    if len(columns) < 2:
        columns = {}
    shown: list[Preview] = [table_of(columns, specs, standing_out)] if columns else []
    rest = ((name, array) for name, array in inputs.items() if name not in columns)
    return [*shown, *(_preview(name, array, specs[name], standing_out) for name, array in rest)]


def _preview(name: str, array: Array, spec: TensorSpec, standing_out: Collection[str]) -> Preview:
    if is_picture(array):
        height, width = channels_last(array).shape[:2]
        return PicturePreview(name, width, height)
    if array.dtype.kind == "O":
        parts = tuple(beginning(item) for item in array.flat[:MAX_TEXTS])
        return TextPreview(name, parts, array.size - len(parts))
    if _is_numbers(array):
        return _row(name, array.reshape(-1), spec, standing_out)
    return SummaryPreview(name, _facts(array, spec))


def _is_text(array: Array) -> bool:
    """Whether this is one text."""
    return array.dtype.kind == "O" and array.size == 1


def _is_numbers(array: Array, most: int = MAX_CELLS) -> bool:
    """Whether this is a row of at most so many numbers."""
    one_row = array.ndim <= 2 and array.shape[:-1] in ((), (1,))
    return array.dtype.kind in "biuf" and one_row and 1 <= array.size <= most


def _row(name: str, values: Array, spec: TensorSpec, standing_out: Collection[str]) -> NumbersPreview:
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (0.0, 0.0) if not finite.size else (float(finite.min()), float(finite.max()))
    low, high = (low if spec.low is None else spec.low), (high if spec.high is None else spec.high)
    cells = (
        Cell(
            i,
            format_number(value),
            None if math.isnan(place) else round(float(place), 4),
            stood_out(name if len(values) == 1 else f"{name}[{i}]", standing_out),
        )
        for i, (value, place) in enumerate(
            zip(values.tolist(), places(numbers, low, high).tolist(), strict=True)
        )
    )
    return NumbersPreview(name, format_number(low), format_number(high), tuple(cells))


def _facts(array: Array, spec: TensorSpec) -> dict[str, str]:
    datatype = spec.datatype if spec is not _NO_SPEC and spec.dtype == array.dtype else str(array.dtype)
    facts = {"type": datatype, "shape": " × ".join(map(str, array.shape)), "values": str(array.size)}
    numbers = array.astype(np.float64).reshape(-1)
    finite = numbers[np.isfinite(numbers)]
    if finite.size:
        facts |= {
            "smallest": format_number(float(finite.min())),
            "largest": format_number(float(finite.max())),
        }
        facts |= {"median": format_number(float(np.median(finite)))}
        facts |= {"first": ", ".join(format_number(float(value)) for value in finite[:8])}
    if finite.size < array.size:
        facts["not finite"] = str(array.size - finite.size)
    return facts
