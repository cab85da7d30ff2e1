"""Difficulty of a regression row: the mean absolute residual of calibration rows near it.

Rows are near in the table's columns together with the predicted value, each standardised by its median and
quartiles. The value counts as much as all other columns together: errors of most regressors grow with what
they predict, whatever the table says. A row at distance d weighs max(0, d_k - d), where d_k is the distance
of the k-th nearest, so the difficulty is continuous in the row: a value that differs in its last digit has a
difficulty that differs in its last digits, also where the k-th neighbour changes.

Every step is elementwise or a sum along an axis of one row alone, so a row has the same difficulty, to the
last bit, in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.rows import F8

MOST_ROWS = 1_024
NEIGHBOURS = 30
FLOOR = 0.05
FARTHEST = 10.0
EVEN = 1e-3
BLOCK = 1 << 20
QUARTILES_OF_NORMAL = 1.349


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """The same difficulty for every row: a positive number, in units of y."""

    size: float

    def of(self, t: NDArray[Any] | None, value: F8) -> F8:
        """float64[n]. t: not read; value: float64[n]."""
        return np.full(len(value), self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Calibration rows and their absolute residuals.

    centre, scale: float64[f + 1], of the table's columns and the value; rows: float32[f + 1, m],
    standardised, and residuals: float64[m], of the rows kept; floor: a positive number, added to every mean.
    """

    centre: F8
    scale: F8
    rows: NDArray[np.float32]
    residuals: F8
    floor: float

    @classmethod
    def fit(cls, t: NDArray[Any], value: F8, residuals: F8, seed: int) -> Self:
        """Keep at most 1,024 rows, drawn with the seed.

        Args:    t: float32[n, f], NaN or infinite where a value is missing; value, residuals: float64[n],
                 finite, residuals >= 0; n >= 1.
        Cost:    O(n f log n).
        """
        x = _joined(t, value)
        centre, scale = _robust(x)
        scale[-1] /= np.sqrt(max(1, x.shape[1] - 1))
        kept = np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST_ROWS])
        rows = _standard(x[kept], centre, scale).T
        floor = FLOOR * typical_size(residuals)
        return cls(read_only(centre), read_only(scale), read_only(rows), read_only(residuals[kept]), floor)

    def of(self, t: NDArray[Any] | None, value: F8) -> F8:
        """The weighted mean residual of the nearest kept rows, plus the floor.

        Args:    t: float32[n, f]; value: float64[n]. What is not finite counts as the column's median.
        Returns: float64[n], at least the floor.
        Raises:  ValueError if t does not have the fitted width.
        Cost:    O(n m f), in blocks of 4 MB: 30 us for 1 row at f = 10, 0.1 ms at f = 200.
        """
        if t is None or t.shape != (len(value), len(self.centre) - 1):
            found = None if t is None else list(t.shape)
            raise ValueError(
                f"interval: the table has shape {found}, expected [{len(value)}, {len(self.centre) - 1}]; "
                "fit it on this model"
            )
        x = _standard(_joined(t, value), self.centre, self.scale)
        step = max(1, BLOCK // self.rows.size)
        parts = [self._of_block(x[i : i + step]) for i in range(0, len(x), step)]
        return np.concatenate([np.empty(0), *parts])

    def _of_block(self, x: NDArray[np.float32]) -> F8:
        gap = x[:, :, None] - self.rows
        apart = np.sqrt(np.add.reduce(gap * gap, axis=1))
        k = min(NEIGHBOURS, apart.shape[1])
        reach = np.partition(apart, k - 1, axis=1)[:, k - 1 : k] + np.float32(EVEN)
        weight = np.maximum(reach - apart, 0).astype(np.float64)
        mean = np.add.reduce(weight * self.residuals, axis=1) / np.add.reduce(weight, axis=1)
        return np.asarray(mean + self.floor, np.float64)


def typical_size(sizes: F8) -> float:
    """The mean of float64[n] >= 0, or 1 where all are 0: a unit for what is compared with them."""
    return float(sizes.mean()) or 1.0


def _joined(t: NDArray[Any], value: F8) -> F8:
    return np.concatenate([t.astype(np.float64), value[:, None]], axis=1)


def _robust(x: F8) -> tuple[F8, F8]:
    """Median and spread of each column: quartiles, the deviation where these agree, 1 for a constant."""
    known = np.isfinite(x)
    missing = ~known.any(0)
    some = np.where(known, x, np.nan)
    some[:, missing] = 0.0
    low, centre, high = np.nanquantile(some, (0.25, 0.5, 0.75), axis=0)
    spread = (high - low) / QUARTILES_OF_NORMAL
    spread = np.where(spread > 0, spread, np.nanstd(some, axis=0))
    return centre, np.where(spread > 0, spread, 1.0)


def _standard(x: F8, centre: F8, scale: F8) -> NDArray[np.float32]:
    """float32[n, f + 1]: 0 where a value is missing, within the farthest distance that counts."""
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.where(np.isfinite(x), (x - centre) / scale, 0.0)
    return np.clip(moved, -FARTHEST, FARTHEST).astype(np.float32)
