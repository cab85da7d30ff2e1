"""Whether an exported model answers as the model that it was made from.

The file of held-out rows may hold what the original gave for them (`dataset.py`: `expected`). A float agrees
within ABSOLUTE plus RELATIVE times what is expected, as float32 arithmetic in another order does; NaN agrees
with NaN. Labels, integers and texts agree if they are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE, ABSOLUTE = 1e-3, 1e-4
MOST_OTHER = 0.01
"""The largest share of rows that may have another answer."""
FAR = 0.1
"""A number is another answer if it is so far away, as a share of the standard deviation of what is expected.

A forest whose thresholds an exporter rounds differs beyond the tolerance in many rows, and answers the
same."""


@dataclass(frozen=True, slots=True)
class OutputParity:
    """How far one output is from what is expected.

    largest_absolute, largest_relative: over all values, the relative one over those of which more than
    ABSOLUTE is expected; None for labels. differing: the share of rows beyond the tolerance, the first of
    which is first_row. other_argmax: the share of rows whose largest value stands elsewhere; None where a row
    has one value. other: the share of rows with another answer: another label, another largest value, or a
    number that is FAR away.
    """

    output: str
    rows: int
    largest_absolute: float | None
    largest_relative: float | None
    differing: float
    first_row: int | None
    other_argmax: float | None
    other: float

    def __str__(self) -> str:
        parts = [f"{self.differing:.2%} of rows differ" if self.differing else "no row differs"]
        if self.largest_absolute is not None:
            parts.append(f"by at most {self.largest_absolute:.2g} ({self.largest_relative:.2g} of a value)")
        if self.other_argmax is not None:
            parts.append(f"the largest value is another in {self.other_argmax:.2%}")
        return f"{self.output}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the outputs of an exported model are from those of its original."""

    outputs: tuple[OutputParity, ...]

    @property
    def sentence(self) -> str:
        """The finding in one sentence; empty where nothing was expected."""
        if not self.outputs:
            return ""
        found = "; ".join(map(str, self.outputs))
        return f"Beside the original's outputs for {self.outputs[0].rows} rows: {found}."

    @property
    def problem(self) -> str:
        """Why the model is not the expected one; empty if it is."""
        far = [one for one in self.outputs if one.other > MOST_OTHER]
        if not far:
            return ""
        what = " and ".join(
            f"{one.output} is another answer than expected in {one.other:.1%} of the rows, "
            f"and differs first in row {one.first_row}"
            for one in far
        )
        mend = "compare preprocessing, the order of columns and classes, and the export"
        return f"{what}: this model is not the one that gave the expected outputs; {mend}"


def parity(expected: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Parity:
    """How far the outputs are from the expected ones, for each output that is expected.

    Args:    both by the name of the output, [n, ...]; [n] and [n, 1] are the same. Texts are str or bytes.
    Raises:  ValueError naming an output that is not there, has another shape, or text instead of numbers.
    """
    return Parity(tuple(_compared(name, array, outputs) for name, array in expected.items()))


def _compared(name: str, expected: NDArray[Any], outputs: Mapping[str, NDArray[Any]]) -> OutputParity:
    if name not in outputs:
        raise ValueError(f"expected.{name}: the model has no output {name!r}")
    wanted, got = _as_rows(expected), _as_rows(outputs[name])
    if wanted.shape != got.shape:
        raise ValueError(
            f"expected.{name}: has shape {expected.shape}; the model gives {outputs[name].shape}"
        )
    if (wanted.dtype.kind == "U") != (got.dtype.kind == "U"):
        kinds = ("text", "numbers") if wanted.dtype.kind == "U" else ("numbers", "text")
        raise ValueError(f"expected.{name}: holds {kinds[0]}; the model gives {kinds[1]}")
    floats = got.dtype.kind == "f"
    gaps = _gaps(wanted, got) if floats else None
    agree = wanted == got if gaps is None else gaps <= ABSOLUTE + RELATIVE * np.abs(_finite(wanted))
    rows = agree.all(axis=1)
    several = floats and got.shape[1] > 1
    argmax = float(np.mean(wanted.argmax(axis=1) != got.argmax(axis=1))) if several else None
    differing = float(np.mean(~rows))
    return OutputParity(
        name,
        len(got),
        None if gaps is None else float(gaps.max()),
        None if gaps is None else _largest_relative(wanted, gaps),
        differing,
        None if rows.all() else int(rows.argmin()),
        argmax,
        differing if gaps is None else _share_far(wanted, gaps) if argmax is None else argmax,
    )


def _share_far(wanted: NDArray[Any], gaps: NDArray[np.float64]) -> float:
    """The share of rows with a number that is FAR from the expected one, and beyond the tolerance."""
    allowed = np.maximum(FAR * _finite(wanted).std(), ABSOLUTE + RELATIVE * np.abs(_finite(wanted)))
    return float(np.mean((gaps > allowed).any(axis=1)))


def _as_rows(array: NDArray[Any]) -> NDArray[Any]:
    """[n, d], texts as str."""
    if array.dtype.kind in "OS":
        texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in array.flat]
        array = np.array(texts, dtype=np.str_).reshape(array.shape)
    return array.reshape(len(array), -1)


def _gaps(wanted: NDArray[Any], got: NDArray[Any]) -> NDArray[np.float64]:
    """|got - wanted|: 0 for the same infinity or NaN on both sides, infinite for one on one side."""
    with np.errstate(invalid="ignore"):
        gaps = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    return np.where(same, 0.0, np.where(np.isnan(gaps), np.inf, gaps))


def _largest_relative(wanted: NDArray[Any], gaps: NDArray[np.float64]) -> float:
    size = np.abs(_finite(wanted))
    return float(np.max(gaps / np.maximum(size, ABSOLUTE), where=size > ABSOLUTE, initial=0.0))


def _finite(wanted: NDArray[Any]) -> NDArray[np.float64]:
    """The values, 0 for what is not finite: no tolerance is a share of infinity."""
    values = wanted.astype(np.float64)
    return np.where(np.isfinite(values), values, 0.0)
