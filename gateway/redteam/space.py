"""Rows as an attacker moves them: one vector of scaled numbers, and how far it may go from where it began.

| rows | scale | distances |
|---|---|---|
| pictures (a row of two axes of 8 or more) | 1 where values lie in 0 to 1, else 255 | of pixels from 0 to 1 |
| tables | the standard deviation of each column over the samples | in standard deviations |

A scaled row is the input divided by its scale. Values stay between the least and the largest of the samples,
column by column for tables: that is all that an attacker knows of the model's range. On the lattice they also
stay values as the samples have them: whole numbers where a column has nothing else, pixels in 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.core.errors import InvalidRequest, Problem
from gateway.core.rows import F8

Norm: TypeAlias = Literal["l2", "linf"]
SIDE, BYTE, NEARLY = 8, 255.0, 1e-3
TOLERANCE = 1e-5
"""Of a distance: rows travel as float32."""


@dataclass(frozen=True, slots=True)
class Column:
    """One input of the model: float values of one shape a row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """inputs: of the model, in its order; scale, low, high: float64[d], bounds in scaled units.

    grid: float64[d], the distance of neighbouring values in scaled units, 0 where values have no grid;
    lattice: whether rows are kept on it. picture: how many channels, rows and columns a row has, None for
    tables; channels_last: their order.
    """

    inputs: tuple[Column, ...]
    scale: F8
    low: F8
    high: F8
    grid: F8
    lattice: bool = False
    picture: tuple[int, int, int] | None = None
    channels_last: bool = False

    @classmethod
    def of(cls, inputs: tuple[Column, ...], samples: Tensors) -> Space:
        """The space of a model's inputs, from n >= 2 rows of them. Raises InvalidRequest for NaN."""
        flat = _flat(inputs, samples)
        if not np.isfinite(flat).all():
            raise InvalidRequest([Problem("--samples", "holds values that are missing or infinite")])
        low, high = flat.min(axis=0), flat.max(axis=0)
        picture, last = picture_of(inputs)
        if picture is None:
            deviation = flat.std(axis=0)
            scale = np.where(deviation > 0, deviation, 1.0)
            whole = (flat == np.round(flat)).all(axis=0)
            return cls(inputs, scale, low / scale, high / scale, whole / scale)
        one = np.ones(flat.shape[1]) * (1.0 if flat.min() >= 0 and flat.max() <= 1 else BYTE)
        in_bytes = flat / one * BYTE
        step = 1 / BYTE if (np.abs(in_bytes - np.round(in_bytes)) < NEARLY).all() else 0.0
        least, most = np.full_like(one, low.min()) / one, np.full_like(one, high.max()) / one
        grid = np.full_like(one, step)
        return cls(inputs, one, least, most, grid, picture=picture, channels_last=last)

    def on_lattice(self) -> Space:
        """The same, with rows kept on the grid."""
        return replace(self, lattice=True)

    @property
    def size(self) -> int:
        return len(self.scale)

    def scaled(self, rows: Tensors) -> F8:
        """float64[n, d] of n rows by input."""
        return np.asarray(_flat(self.inputs, rows) / self.scale)

    def tensors(self, rows: F8) -> dict[str, NDArray[Any]]:
        """The rows by input, within the bounds, in the inputs' own types."""
        flat, made, at = self.clip(rows) * self.scale, {}, 0
        for one in self.inputs:
            part = flat[:, at : at + one.size]
            made[one.name] = part.reshape(-1, *one.shape).astype(one.dtype)
            at += one.size
        return made

    def clip(self, rows: F8) -> F8:
        """The nearest rows within the bounds, and on the grid where rows are kept on it."""
        inside = np.clip(rows, self.low, self.high)
        if not self.lattice:
            return inside
        return np.where(self.grid > 0, np.round(inside / self._steps) * self._steps, inside)

    @property
    def _steps(self) -> F8:
        return np.where(self.grid > 0, self.grid, 1.0)

    def reach(self, radius: float) -> F8:
        """float64[d]: how far each value may move within a Linf radius, in whole steps of its grid."""
        if not self.lattice:
            return np.full(self.size, radius)
        whole = np.floor(radius / self._steps * (1 + TOLERANCE)) * self._steps
        return np.where(self.grid > 0, whole, radius)

    @property
    def unit(self) -> str:
        """What a distance is measured in."""
        return "standard deviations of each column" if self.picture is None else "pixels from 0 to 1"


@dataclass(frozen=True, slots=True)
class Within:
    """How far an attack may move a row, in scaled units."""

    norm: Norm
    radius: float

    def distance(self, a: F8, b: F8) -> float:
        """Between two rows."""
        return float(np.abs(a - b).max() if self.norm == "linf" else np.linalg.norm(a - b))

    def holds(self, distance: float) -> bool:
        return distance <= self.radius * (1 + TOLERANCE)

    def project(self, row: F8, around: F8) -> F8:
        """The row, drawn back to the radius if it is farther."""
        if self.norm == "linf":
            return np.clip(row, around - self.radius, around + self.radius)
        away = float(np.linalg.norm(row - around))
        return row if away <= self.radius else around + (row - around) * (self.radius / away)

    def __str__(self) -> str:
        return f"{'L2' if self.norm == 'l2' else 'Linf'} {self.radius:g}"


def _flat(inputs: tuple[Column, ...], rows: Tensors) -> F8:
    n = len(rows[inputs[0].name])
    return np.concatenate([np.asarray(rows[one.name], np.float64).reshape(n, -1) for one in inputs], axis=1)


def picture_of(inputs: tuple[Column, ...]) -> tuple[tuple[int, int, int] | None, bool]:
    """Channels, rows and columns of the only input, and whether channels come last."""
    if len(inputs) != 1:
        return None, False
    match inputs[0].shape:
        case (h, w) if min(h, w) >= SIDE:
            return (1, h, w), False
        case (c, h, w) if min(h, w) >= SIDE and c <= 4:
            return (c, h, w), False
        case (h, w, c) if min(h, w) >= SIDE and c <= 4:
            return (c, h, w), True
        case _:
            return None, False
