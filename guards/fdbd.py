"""fDBD: distance of the features to the decision boundaries, relative to their distance from the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import read_only
from guards.detector import I8, as_matrix, check_fit_rows
from guards.rows import F8, Signals

MAX_AFFINE_RESIDUAL = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Fdbd:
    """Minus the mean distance to the other classes' boundaries, over the distance from the mean feature.

    weights: float64[k, k], 1 / ((k-1) |w_i - w_j|) for rows w of the last layer, 0 where they are equal;
    mu: float64[d], the mean feature; least_radius: the floor of |h - mu|.
    """

    kind: ClassVar[str] = "fdbd"
    needs_features: ClassVar[bool] = True

    weights: F8
    mu: F8
    least_radius: float

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Estimate the last layer from features and logits by least squares.

        Args:    s.h: float[n, d]; s.z: float[n, k >= 2]; y: int64[n], only counted; seed: unused.
        Raises:  ValueError if z is not affine in h (more than 1 % of its spread is left over: h is then not
                 the input of the last layer), for fewer than 2 (d + 1) rows, or fewer than two classes.
        Source:  docs/guards.md, fdbd. Deviation: the paper is given the last layer; here it is the
                 least-squares fit of z on h, exact on the span of the features.
        """
        h, z = as_matrix("fdbd", "features", s.h), as_matrix("fdbd", "logits", s.z)
        check_fit_rows("fdbd", h, y, 2 * (h.shape[1] + 1))
        if z.shape[1] < 2 or len(z) != len(h):
            raise ValueError(
                f"fdbd: logits have shape {list(z.shape)}, expected [{len(h)}, k >= 2]; check the outputs"
            )
        mu = h.mean(0)
        head, _, rank, _ = np.linalg.lstsq(h - mu, z - z.mean(0))
        residual = (z - z.mean(0) - (h - mu) @ head) * np.sqrt(len(h) / (len(h) - int(rank) - 1))
        share = float(np.sqrt(np.square(residual).mean() / max(float(z.var(0).mean()), 1e-30)))
        if not share < MAX_AFFINE_RESIDUAL:
            raise ValueError(
                f"fdbd: logits are not affine in the features ({share:.0%} of their spread is left over); "
                "give as features the input of the last layer"
            )
        gap = np.sqrt(np.square(head.T[:, None] - head.T[None]).sum(2))
        same_row = gap <= 1e-9 * gap.max()
        weights = np.where(same_row, 0.0, 1.0 / np.where(same_row, 1.0, gap)) / (len(gap) - 1)
        radius = float(np.median(np.sqrt(np.square(h - mu).sum(1))))
        return cls(read_only(weights), read_only(mu), max(1e-6 * radius, 1e-30))

    def score(self, s: Signals, /) -> F8:
        """Minus the mean boundary distance, relative to the distance from the mean feature.

        Returns: float64[n] in (-inf, 0].
        Raises:  ValueError if h or z does not have the fitted width, or they differ in rows.
        Cost:    O(n (d + k)): about 10 us at n=1, k=10, d=96.
        Source:  Liu and Qin, ICML 2024, eq. 10, with the sign turned. Deviation: the divisor has a floor of
                 1e-6 of its median.
        """
        h, z = (
            as_matrix("fdbd", "features", s.h, len(self.mu)),
            as_matrix("fdbd", "logits", s.z, len(self.weights)),
        )
        if h.shape[0] != z.shape[0]:
            raise ValueError(
                f"fdbd: {h.shape[0]} rows of features but {z.shape[0]} of logits; check the model's outputs"
            )
        h = h - self.mu
        weights = np.take_along_axis(self.weights, z.argmax(1)[:, None], 0)
        boundary = np.vecdot(z.max(1, keepdims=True) - z, weights)
        radius = np.maximum(np.sqrt(np.vecdot(h, h)), self.least_radius)
        score: F8 = -boundary / radius
        return score
