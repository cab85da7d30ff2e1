"""Residual: the length of the features outside the principal space of good rows' features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import read_only
from guards.atoms import FLOAT32_NOISE, varying
from guards.detector import I8, as_matrix, check_fit_rows
from guards.rows import F8, Signals

EXPLAINED_VARIANCE = 0.95
LEAST = 1e-60


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """The length of h - mu outside its principal space. basis: float64[r, d], orthonormal; mu: float64[d]."""

    kind: ClassVar[str] = "residual"
    needs_features: ClassVar[bool] = True

    mu: F8
    basis: F8

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """The fewest principal directions that explain 95 % of the variance, at most d - 1.

        Args:    s.h: float[n, d]; y: int64[n], only counted; seed: unused.
        Raises:  ValueError if the features do not vary, or for fewer than two rows.
        """
        h = as_matrix("residual", "features", s.h)
        check_fit_rows("residual", h, y, 2)
        if not varying(h).any():
            raise ValueError("residual: the features to fit on are all alike; check the features output")
        mu = h.mean(0)
        variance, directions = np.linalg.eigh(np.cov((h - mu).T).reshape(h.shape[1], -1))
        variance, directions = np.maximum(variance[::-1], 0), directions[:, ::-1]
        explained = np.cumsum(variance) / variance.sum()
        r = min(int(np.searchsorted(explained, EXPLAINED_VARIANCE)) + 1, h.shape[1] - 1)
        return cls(read_only(mu), read_only(directions[:, :r].T))

    def score(self, s: Signals, /) -> F8:
        """The norm of the part of h - mu outside the principal space.

        Returns: float64[n] in [0, inf); exactly 0 up to t, a millionth of the norm of h (rounding), and
                 rising from there without a jump: a residual r gives r - t^2 / r.
        Raises:  ValueError if h does not have the fitted width.
        Cost:    O(n d r): about 9 us at n=1, d=96.
        Source:  Wang et al., ViM, CVPR 2022, eq. 2. Deviations: the residual alone, without a virtual logit;
                 centred on the mean, not on the origin of the last layer; r by explained variance.
        """
        h = as_matrix("residual", "features", s.h, len(self.mu))
        rounding = FLOAT32_NOISE**2 * np.vecdot(h, h)
        h = h - self.mu
        inside = h @ self.basis.T
        outside = np.vecdot(h, h) - np.vecdot(inside, inside)
        length = np.sqrt(np.maximum(outside, rounding + LEAST))
        score: F8 = np.maximum(outside - rounding, 0.0) / length
        return score
