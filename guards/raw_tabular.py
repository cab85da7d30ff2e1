"""RawTabular: the values of a table row against those of the calibration data. Reads the input alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.atoms import FLOAT32_NOISE
from guards.detector import I8, as_input, check_fit_rows
from guards.prototypes import distance, half_squared_norms, prototypes, proximity
from guards.rarity import Tail, blend
from guards.rows import F8, Signals

PROTOTYPES = 256
MIN_ROWS = 80
RIDGE = 1e-3
CONSTANT_SHARE = 1e-3
TAIL_FLOORS = (1e-3, 1e-3, 0.05, 0.02, 1.0)
MAX_EXACT_INTEGER = 2.0**23
MAX_FLOAT64 = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Statistics of each column, all float64[f].

    fill: replaces a missing value; mean, scale: of the known values; low, high: their range; per_range:
    1 / (high - low). A constant column has a scale and a range of one, or of a thousandth of its value if
    that is larger; no column has less than float32 noise. whole: 1 if all known values are integers, else 0;
    missing: rarity of a missing value, nats.
    """

    fill: F8
    mean: F8
    scale: F8
    low: F8
    high: F8
    per_range: F8
    whole: F8
    missing: F8

    @classmethod
    def fit(cls, x: F8) -> Self:
        """Fit on float64[n, f], NaN or infinity where a value is missing."""
        known = np.isfinite(x)
        count = np.maximum(known.sum(0), 1)
        zeroed = np.where(known, x, 0.0)
        some = known.any(0)
        low = np.where(some, np.where(known, x, np.inf).min(0), 0.0)
        high = np.where(some, np.where(known, x, -np.inf).max(0), 0.0)
        mean = np.clip(zeroed.sum(0) / count, low, high)
        whole = ((zeroed == np.rint(zeroed)) & (np.abs(zeroed) < MAX_EXACT_INTEGER)).all(0) & some
        fill = np.where(whole, np.rint(mean), mean)
        largest = np.maximum(np.abs(low), np.abs(high))
        least = np.where(low < high, FLOAT32_NOISE * largest, np.maximum(1.0, CONSTANT_SHARE * largest))
        scale = np.sqrt(np.where(known, np.square(x - mean), 0.0).sum(0) / count)
        return cls(
            read_only(fill),
            read_only(mean),
            read_only(np.maximum(scale, least)),
            read_only(low),
            read_only(high),
            read_only(1.0 / np.maximum(high - low, least)),
            read_only(whole.astype(np.float64)),
            read_only(-np.log((1 + (~known).sum(0)) / (1 + len(x)))),
        )

    def violations(self, x: F8) -> tuple[F8, F8]:
        """float64[n] each: excess over the ranges (in ranges), distance to an integer in whole columns."""
        beyond = np.abs(x - np.minimum(np.maximum(x, self.low), self.high))
        broken = np.abs(x - np.rint(x)) * self.whole
        return np.vecdot(beyond, self.per_range), np.maximum.reduce(broken, 1)

    def filled(self, x: F8) -> tuple[F8, F8]:
        """(float64[n, f] with missing values replaced, float64[n] nats of the missing values)."""
        known = np.abs(x) <= MAX_FLOAT64
        return np.where(known, x, self.fill), np.where(known, 0.0, 1.0) @ self.missing


@dataclass(frozen=True, slots=True, eq=False)
class RawTabular:
    """Five sub-scores of a table row, each as a rarity, blended.

    Distance to the nearest prototype, Mahalanobis distance (broken correlations), excess over the columns'
    ranges, fractions in columns of whole numbers, and missing values. A missing value (NaN or infinite) is
    not an error: it adds its rarity, which is small where missing values were common in fit.

    centres: float64[m, f] and halves: float64[m], prototypes; whiten: float64[f, f]; tails: of the five.
    """

    kind: ClassVar[str] = "raw_tabular"
    needs_features: ClassVar[bool] = False

    columns: Columns
    centres: F8
    halves: F8
    whiten: F8
    tails: tuple[Tail, ...]

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Columns, prototypes and covariance on one half of the rows, the sub-scores' tails on the other.

        Args:    s.t: float32[n, f], one column per feature (`table.py`); y: int64[n], the
                 classes of the prototypes; seed: of the halves and of the prototypes.
        Raises:  ValueError for another rank, fewer than 80 rows, or columns that are all constant.
        """
        t = as_input("raw_tabular", "a table of inputs", s.t)
        if t.ndim != 2 or t.shape[1] < 1:
            raise ValueError(f"raw_tabular: t has shape {list(t.shape)}, expected [n, f >= 1]")
        check_fit_rows("raw_tabular", np.nan_to_num(t, posinf=0.0, neginf=0.0), y, MIN_ROWS)
        order = np.random.default_rng(seed).permutation(len(y))
        first, second = order[::2], order[1::2]
        x = t.astype(np.float64)
        columns = Columns.fit(x[first])
        standard = (columns.filled(x[first])[0] - columns.mean) / columns.scale
        centres, _ = prototypes(standard, y[first], PROTOTYPES, seed)
        values, vectors = np.linalg.eigh(np.cov(standard.T).reshape(standard.shape[1], -1))
        if not values[-1] > 0:
            raise ValueError("raw_tabular: the rows to fit on are all alike; give rows that vary")
        whiten = vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE)
        scores = _scores(columns, centres, half_squared_norms(centres), whiten, x[second])
        tails = tuple(Tail.fit(score, floor=floor) for score, floor in zip(scores, TAIL_FLOORS, strict=True))
        return cls(
            columns, read_only(centres), read_only(half_squared_norms(centres)), read_only(whiten), tails
        )

    def score(self, s: Signals, /) -> F8:
        """The blended rarity of the row.

        Returns: float64[n] nats in [0, inf), also for rows with missing values.
        Raises:  ValueError if t does not have the fitted width.
        Cost:    O(n m f): about 52 us at n=1, f=16.
        Source:  docs/guards.md, raw tabular; sub-scores chosen on ADBench (Han et al., NeurIPS 2022). A small
                 ridge instead of Ledoit-Wolf shrinkage, which would hide a broken near-linear relation.
        """
        width = len(self.columns.mean)
        t = as_input("raw_tabular", "a table of inputs", s.t)
        if t.ndim != 2 or t.shape[1] != width:
            raise ValueError(
                f"raw_tabular: t has shape {list(t.shape)}, expected [n, {width}]; fit it on this model"
            )
        x = t.astype(np.float64)
        return blend(self.tails, _scores(self.columns, self.centres, self.halves, self.whiten, x))

    def standing_out(self, t: NDArray[np.float32]) -> F8:
        """How unusual each value of a row is: float64[n, f] nats, for float32[n, f] of the fitted width."""
        x = t.astype(np.float64)
        standard = (self.columns.filled(x)[0] - self.columns.mean) / self.columns.scale
        return np.where(np.isfinite(x), np.square(standard) / 2, self.columns.missing)


def _scores(columns: Columns, centres: F8, halves: F8, whiten: F8, x: F8) -> tuple[F8, ...]:
    """float64[n] each: nearest prototype, Mahalanobis, range excess, distance to an integer, missing nats."""
    x, missing_nats = columns.filled(x)
    standard = (x - columns.mean) / columns.scale
    nearest = distance(standard, centres, proximity(standard, centres, halves).argmax(1))
    white = standard @ whiten
    return nearest, np.sqrt(np.vecdot(white, white)), *columns.violations(x), missing_nats
