"""RawTabular: does the table row itself look like those the model was made for? Needs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import frozen
from guards.detector import I8, labelled
from guards.prototypes import closeness, distance, half_squares, prototypes
from guards.rarity import Tail, blend
from guards.rows import F8, Signals

PROTOTYPES = 256
LEAST = 80
RIDGE = 1e-3
FLOORS = (0.0, 0.0, 0.05, 0.02, 1.0)
WHOLE_UP_TO = 2.0**23
LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What each column is: its range, its spread, whether whole numbers, how rare it is that it is missing.

    All float64[f]. fill: stands in for a missing value. per_range: one over high - low. whole: 1 or 0.
    missing: nats.
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
        """From float64[n, f], NaN or infinity where a value is missing."""
        known = np.isfinite(x)
        count = np.maximum(known.sum(0), 1)
        zeroed = np.where(known, x, 0.0)
        mean = zeroed.sum(0) / count
        whole = ((zeroed == np.rint(zeroed)) & (np.abs(zeroed) < WHOLE_UP_TO)).all(0) & known.any(0)
        fill = np.where(whole, np.rint(mean), mean)
        filled = np.where(known, x, fill)
        width = filled.max(0) - filled.min(0)
        scale = np.sqrt(np.where(known, np.square(x - mean), 0.0).sum(0) / count)
        return cls(
            frozen(fill),
            frozen(mean),
            frozen(np.where(scale > 0, scale, 1.0)),
            frozen(filled.min(0)),
            frozen(filled.max(0)),
            frozen(1.0 / np.where(width > 0, width, 1.0)),
            frozen(whole.astype(np.float64)),
            frozen(-np.log((1 + (~known).sum(0)) / (1 + len(x)))),
        )

    def faults(self, x: F8) -> tuple[F8, F8]:
        """float64[n] each: excess over the seen ranges (in ranges), largest broken whole number."""
        beyond = np.abs(x - np.minimum(np.maximum(x, self.low), self.high))
        broken = np.abs(x - np.rint(x)) * self.whole
        return np.vecdot(beyond, self.per_range), np.maximum.reduce(broken, 1)

    def filled(self, x: F8) -> tuple[F8, F8]:
        """(x without gaps, float64[n] nats of what was missing)."""
        known = np.abs(x) <= LARGEST
        return np.where(known, x, self.fill), np.where(known, 0.0, 1.0) @ self.missing


@dataclass(frozen=True, slots=True, eq=False)
class RawTabular:
    """Five ways for a row to be odd, each as a rarity, blended.

    Far from every prototype, a broken correlation (Mahalanobis), out of a column's range, a fraction where
    there were whole numbers, and missing values.

    Missing (NaN or infinite) is suspicious, never an error: where it was common in fit, it costs little.
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

        Args:    s.x: float32[n, f], one column a feature; categories as whole numbers.
        Raises:  ValueError for another rank, under 80 rows, or columns that are all constant.
        """
        if s.x.ndim != 2 or s.x.shape[1] < 1:
            raise ValueError(f"raw_tabular: x has shape {list(s.x.shape)}, expected [n, f >= 1]")
        labelled("raw_tabular", np.nan_to_num(s.x, posinf=0.0, neginf=0.0), y, LEAST)
        order = np.random.default_rng(seed).permutation(len(y))
        first, second = order[::2], order[1::2]
        x = s.x.astype(np.float64)
        columns = Columns.fit(x[first])
        standard = (columns.filled(x[first])[0] - columns.mean) / columns.scale
        centres, _ = prototypes(standard, y[first], PROTOTYPES, seed)
        values, vectors = np.linalg.eigh(np.cov(standard.T).reshape(standard.shape[1], -1))
        if not values[-1] > 0:
            raise ValueError("raw_tabular: the rows to fit on are all alike; give rows that vary")
        whiten = vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE)
        scores = _scores(columns, centres, half_squares(centres), whiten, x[second])
        tails = tuple(Tail.fit(score, floor=floor) for score, floor in zip(scores, FLOORS, strict=True))
        return cls(columns, frozen(centres), frozen(half_squares(centres)), frozen(whiten), tails)

    def score(self, s: Signals, /) -> F8:
        """The blended rarity of the row.

        Returns: float64[n] in [0, inf), also for rows with missing values.
        Raises:  ValueError if x does not have the fitted width.
        Cost:    O(n m f): about 52 us at n=1, f=16.
        Source:  guards.md, "raw input" (ADBench: kNN to 256 prototypes 0.854, Mahalanobis 0.817 mean
                 AUROC). A small ridge, not Ledoit-Wolf: that would hide a broken near-linear relation.
        """
        width = len(self.columns.mean)
        if s.x.ndim != 2 or s.x.shape[1] != width:
            raise ValueError(
                f"raw_tabular: x has shape {list(s.x.shape)}, expected [n, {width}]; fit it on this model"
            )
        x = s.x.astype(np.float64)
        return blend(self.tails, _scores(self.columns, self.centres, self.halves, self.whiten, x))


def _scores(columns: Columns, centres: F8, halves: F8, whiten: F8, x: F8) -> tuple[F8, ...]:
    """float64[n] each: nearest prototype, Mahalanobis, range excess, broken whole numbers, missing nats."""
    x, lost = columns.filled(x)
    standard = (x - columns.mean) / columns.scale
    near = distance(standard, centres, closeness(standard, centres, halves).argmax(1))
    white = standard @ whiten
    return near, np.sqrt(np.vecdot(white, white)), *columns.faults(x), lost
