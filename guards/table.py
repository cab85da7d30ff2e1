"""Table: all inputs of a row but pictures as one row of numbers, float32[f], for `raw_tabular.py`.

Numbers stay as they are, a text becomes one column or two (`text_columns.py`), a row of very many numbers a
few that sum it up (`summary_columns.py`), and what cannot be read is named. Missing numbers are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.summary_columns import Summary
from guards.text_columns import F4, Categories, FreeText, text_column

Inputs: TypeAlias = Mapping[str, NDArray[Any]]

MOST_NUMBERS = 1024
"""Numbers a row of one input that have a column each; more are summed up."""
MOST_TEXTS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A numeric input as float32 columns. name: of the input; width: its values a row, 1 .. 1024."""

    name: str
    width: int

    def write(self, array: NDArray[Any], columns: F4) -> None:
        """Write [n, ...] of any numeric dtype into float32[n, width]; beyond float32 becomes infinite."""
        columns[...] = array.reshape(len(columns), self.width)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """An input of texts. name: of the input; each: one for every text of a row, 1 .. 16."""

    name: str
    each: tuple[Categories | FreeText, ...]

    @property
    def width(self) -> int:
        return sum(len(one.suffixes) for one in self.each)

    def write(self, array: NDArray[Any], columns: F4) -> None:
        """Write object[n, ...] of bytes into float32[n, width]."""
        texts, at = array.reshape(len(columns), len(self.each)), 0
        for i, one in enumerate(self.each):
            end = at + len(one.suffixes)
            one.write(texts[:, i], columns[:, at:end])
            at = end


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The fitted reading of a model's inputs.

    parts: one for every input that is read, in the order of the inputs; columns: a name for each column, as
    `age`, `x[3]`, `review: length`; unguarded, reasons: the inputs that no column stands for, and why.
    """

    parts: tuple[Numbers | Texts | Summary, ...]
    columns: tuple[str, ...]
    unguarded: tuple[str, ...]
    reasons: tuple[str, ...]

    @classmethod
    def fit(cls, inputs: Inputs, missing: frozenset[str], pictures: frozenset[str]) -> Self | None:
        """Learn categories and trigrams from calibration rows.

        Args:    inputs: of the same n rows, by name: numbers of any dtype, or object arrays of bytes,
                 [n, ...]. missing: the inputs that may hold NaN. pictures: those that another detector reads.
        Returns: None if no input can be read.
        Raises:  ValueError for NaN in another input, with its name and the first row.
        """
        parts: list[Numbers | Texts | Summary] = []
        columns: list[str] = []
        refused: dict[str, str] = {}
        for name, array in inputs.items():
            if name in pictures:
                continue
            if reason := _unreadable(array):
                refused[name] = reason
            elif array.dtype.kind == "O":
                flat = array.reshape(len(array), math.prod(array.shape[1:]))
                each = tuple(text_column(flat[:, i].tolist()) for i in range(flat.shape[1]))
                parts.append(Texts(name, each))
                cells = zip(_cells(name, array.shape[1:]), each, strict=True)
                columns += [cell + suffix for cell, one in cells for suffix in one.suffixes]
            else:
                if name not in missing:
                    _check_nothing_is_missing(name, array)
                width = math.prod(array.shape[1:])
                if width > MOST_NUMBERS:
                    parts.append(Summary.fit(name, array))
                    columns += [name + suffix for suffix in Summary.suffixes]
                else:
                    parts.append(Numbers(name, width))
                    columns += _cells(name, array.shape[1:])
        if not parts:
            return None
        return cls(tuple(parts), tuple(columns), tuple(refused), tuple(refused.values()))

    def read(self, inputs: Inputs) -> F4:
        """The rows as a table.

        Args:    inputs: those of fit by name, of n rows each; others are ignored.
        Returns: float32[n, f], NaN where a number is missing or a free text is empty. One float32[n, f] input
                 alone is returned itself, not a copy.
        Raises:  KeyError for an input that is not there, ValueError for another number of values a row.
        Cost:    O(n f): about 1 us and 0.5 us a part at n=1; for a free text see `FreeText.write`.
        """
        only, first = self.parts[0], inputs[self.parts[0].name]
        if (
            len(self.parts) == 1
            and isinstance(only, Numbers)
            and first.ndim == 2
            and first.dtype == np.float32
        ):
            return first
        table, at = np.empty((len(first), len(self.columns)), np.float32), 0
        with np.errstate(over="ignore"):
            for part in self.parts:
                end = at + part.width
                part.write(inputs[part.name], table[:, at:end])
                at = end
        return table


def _unreadable(array: NDArray[Any]) -> str:
    """Why an input has no columns, or nothing."""
    width = math.prod(array.shape[1:])
    if not width:
        return "it holds no values"
    if array.dtype.kind == "O" and width > MOST_TEXTS:
        return f"it holds {width} texts a row; {MOST_TEXTS} are read"
    return ""


def _cells(name: str, shape: tuple[int, ...]) -> list[str]:
    """A name for each value of a row of this shape; the input's own if there is one value."""
    if math.prod(shape) == 1:
        return [name]
    return [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]


def _check_nothing_is_missing(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and (bad := np.isnan(array).any(tuple(range(1, array.ndim)))).any():
        raise ValueError(
            f"{name}: holds NaN, first in row {int(bad.argmax())}; remove it, or say `missing: allow`"
        )
