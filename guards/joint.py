"""The values of a table row together: nearest prototype, covariance, each value as the others predict it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.detector import I8
from guards.prototypes import distance, half_squared_norms, prototypes, proximity
from guards.rows import F8

PROTOTYPES = 512
RIDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Prototypes and covariance of standardised rows.

    centres: float64[m, f] and halves: float64[m], prototypes; whiten: float64[f, f], the inverse root of the
    covariance; others: float64[f, f], column j predicts value j from the other values; per_error: float64[f],
    1 / (standard deviation of the error of that prediction); gaps: whether values were missing in fit.
    """

    centres: F8
    halves: F8
    whiten: F8
    others: F8
    per_error: F8
    gaps: bool

    @classmethod
    def fit(cls, standard: F8, here: NDArray[np.bool_], y: I8, seed: int) -> Self:
        """Fit on standardised rows.

        Args:    standard: float64[n, f]; here: bool[n, f], which values are known; y: int64[n], the classes
                 of the prototypes; seed: of the prototypes.
        Source:  docs/guards.md, raw tabular. A small ridge instead of Ledoit-Wolf shrinkage, which would hide
                 a broken near-linear relation. Each covariance is of the rows that know both values.
        """
        zeroed = np.where(here, standard, 0.0)
        pairs = np.maximum(here.T.astype(np.float64) @ here, 1.0)
        values, vectors = np.linalg.eigh(zeroed.T @ zeroed / pairs)
        whiten = vectors / np.sqrt(np.maximum(values, 0.0) + RIDGE)
        precision = whiten @ whiten.T
        diagonal = np.diagonal(precision)
        others = np.where(np.eye(len(precision)) > 0, 0.0, -precision / diagonal)
        gaps = not bool(here.all())
        rows = _completed(zeroed, here, others) if gaps else standard
        centres, _ = prototypes(rows, y, PROTOTYPES, seed)
        halves = half_squared_norms(centres)
        per_error = read_only(np.sqrt(diagonal))
        shared = read_only(centres), read_only(halves)
        return cls(*shared, read_only(whiten), read_only(others), per_error, gaps)

    def distances(self, standard: F8, here: NDArray[np.bool_]) -> tuple[F8, F8]:
        """float64[n] each: to the nearest prototype, and the Mahalanobis distance.

        If values were missing in fit, a missing value is what the others say of it; else 0, the mean.
        """
        rows = _completed(np.where(here, standard, 0.0), here, self.others) if self.gaps else standard
        nearest = proximity(rows, self.centres, self.halves).argmax(1)
        white = rows @ self.whiten
        return distance(rows, self.centres, nearest), np.sqrt(np.vecdot(white, white))

    def errors(self, standard: F8) -> F8:
        """How far each value is from what the others say of it, in standard deviations: float64[n, f]."""
        return np.abs(standard - standard @ self.others) * self.per_error

    def without(self, row: F8, drop: NDArray[np.bool_]) -> F8:
        """One row, float64[f], with the values `drop`, bool[f], as the others say: by one linear system."""
        if not drop.any():
            return row
        inner = np.eye(int(drop.sum())) - self.others[np.ix_(drop, drop)].T
        settled = row.copy()
        settled[drop] = np.linalg.solve(inner, np.where(drop, 0.0, row) @ self.others[:, drop])
        return settled


def _completed(zeroed: F8, here: NDArray[np.bool_], others: F8) -> F8:
    """Rows whose missing values, 0 in `zeroed`, are predicted from the others; exact if one is missing."""
    return np.where(here, zeroed, zeroed @ others)
