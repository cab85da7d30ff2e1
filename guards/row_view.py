"""How guards read the inputs of a model: one picture, and one table made of all other inputs.

`x` is the first input that is a picture, float32[n, c, h, w] or [n, h, w, c]; `t` is float32[n, f] with a
column for each number and for each measure of a text (`guards/table.py`). What neither holds is not guarded,
and is named with the reason: a second picture, or an input of too many values.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from guards.rows import Signals, Tensors
from guards.table import Table

PICTURE_RANK = 4
PICTURE, TABLE = "x", "t"
"""The names of both among the arrays that a formula reads."""


class InputSpec(Protocol):
    """The form of one input: its first axis is the row."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int | None, ...]: ...


def is_picture(spec: InputSpec) -> bool:
    """Whether an input has the form of pictures."""
    return len(spec.shape) == PICTURE_RANK and spec.dtype.kind in "fiu"


@dataclass(frozen=True, slots=True)
class RowView:
    """Fitted once for all guards.

    pictures, tables: at most one each; unguarded, reasons: the inputs that no guard can read, and why.
    """

    pictures: tuple[str, ...]
    tables: tuple[Table, ...]
    unguarded: tuple[str, ...]
    reasons: tuple[str, ...]

    @classmethod
    def fit(cls, inputs: Tensors, missing: Set[str], any_size: Set[str] = frozenset()) -> Self:
        """The view of these rows.

        Args:    missing: the inputs in which NaN is a missing value; any_size: those whose rows may have
                 other
                 sizes, so that no guard can read them.
        """
        reasons = {name: "its rows may have any size" for name in inputs if name in any_size}
        read = {name: array for name, array in inputs.items() if name not in any_size}
        pictures = [name for name, array in read.items() if _holds_pictures(array)]
        reasons |= dict.fromkeys(pictures[1:], "guards read one picture, the first")
        table = Table.fit(read, frozenset(missing), frozenset(pictures))
        if table is None:
            left = [name for name in read if name not in pictures]
            reasons |= dict.fromkeys(left, "it holds no values, or too many for the columns of a table")
        else:
            reasons |= dict(zip(table.unguarded, table.reasons, strict=True))
        tables = () if table is None else (table,)
        return cls(tuple(pictures[:1]), tables, tuple(reasons), tuple(reasons.values()))

    @property
    def table_inputs(self) -> tuple[str, ...]:
        """The inputs of which the table has columns."""
        return tuple(part.name for table in self.tables for part in table.parts)

    @property
    def picture(self) -> str | None:
        """The input that is read as a picture."""
        return self.pictures[0] if self.pictures else None

    @property
    def table(self) -> Table | None:
        """How the other inputs become columns."""
        return self.tables[0] if self.tables else None

    def arrays(self, inputs: Tensors) -> dict[str, NDArray[np.float32]]:
        """`x` and `t` of these rows, where there are any; a float64 beyond float32 is infinite."""
        found: dict[str, NDArray[np.float32]] = {}
        if self.pictures:
            found[PICTURE] = _as_float32(inputs[self.pictures[0]])
        if self.tables:
            found[TABLE] = self.tables[0].read(inputs)
        return found

    def signals(self, inputs: Tensors, answer: Mapping[str, NDArray[Any]]) -> Signals:
        """What detectors read of these rows and of the model's answer to them."""
        found = self.arrays(inputs)
        return Signals(found.get(PICTURE), found.get(TABLE), answer.get("features"), answer.get("logits"))


def _holds_pictures(array: NDArray[Any]) -> bool:
    return array.ndim == PICTURE_RANK and array.dtype.kind in "fiu"


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype != np.float64:
        return np.asarray(values, np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
