"""GEN: a generalised entropy of the predicted distribution, computed from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.detector import I8, as_matrix, check_fit_rows
from guards.rows import F8, Signals

GAMMA = 0.1
TOP = 100


@dataclass(frozen=True, slots=True, eq=False)
class Gen:
    """The sum over the top classes of (p (1 - p))^0.1.

    k: the number of classes. Sensitive to probability that leaks to unlikely classes. Does not detect
    a row on which the classifier is confidently wrong.
    """

    kind: ClassVar[str] = "gen"
    needs_features: ClassVar[bool] = True

    k: int

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Store the number of classes; nothing else is fitted.

        Args:    s.z: float[n, k]; y: int64[n], only counted; seed: unused.
        Raises:  ValueError for fewer than two classes.
        """
        z = as_matrix("gen", "logits", s.z)
        check_fit_rows("gen", z, y, 1)
        if z.shape[1] < 2:
            raise ValueError(f"gen: needs two or more classes, not {z.shape[1]}; leave it out for this model")
        return cls(z.shape[1])

    def score(self, s: Signals, /) -> F8:
        """The generalised entropy of each row.

        Computed in log space and float64, because p in float32 is exactly 1 from a margin of 17 on and the
        score would be 0: with z descending, log(1 - p_1) is the log-sum-exp of the other logits minus that of
        all (docs/guards.md, gen).

        Returns: float64[n] in [0, min(k, 100)].
        Raises:  ValueError if z does not have the fitted width.
        Cost:    O(n k log k): about 16 us at n=1, k=10.
        Source:  Liu et al., CVPR 2023, eq. 4, gamma 0.1, top 100, with the sign turned.
        """
        z = np.sort(as_matrix("gen", "logits", s.z, self.k), axis=1)
        margins = z[:, :-1] - z[:, -1:]
        second = margins[:, -1:]
        mass = np.exp(margins - second)
        most = np.log(np.add.reduce(mass, 1, keepdims=True)) + second
        total = 1.0 + np.exp(most)
        top = slice(1 - TOP, None)
        others = np.exp(GAMMA * (margins[:, top] + np.log(total - mass[:, top] * np.exp(second))))
        whole = np.exp(GAMMA * most) + np.add.reduce(others, 1, keepdims=True)
        entropy: F8 = (whole * total ** (-2 * GAMMA))[:, 0]
        return entropy
