"""RMD: the relative Mahalanobis distance, to the nearest class minus to all classes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import read_only
from guards.atoms import FLOAT32_NOISE
from guards.detector import I8, as_matrix, check_fit_rows, unit_rows
from guards.rows import F8, Signals
from guards.shrinkage import shrunk_covariance


@dataclass(frozen=True, slots=True, eq=False)
class Rmd:
    """The relative Mahalanobis distance, through the k-1 directions in which the classes differ.

    With S_t = S_w + between-class scatter, the d - k + 1 other directions cancel in MD_class - MD_all, so the
    score needs k + r inner products, r <= k-1, and no d x d matrix. It does not depend on the features
    outside that subspace, nor on their length: run `residual` beside it.

    rows: float64[k + r, d], one per class, then the r shared ones; offset: float64[k + r]; k: classes in fit.
    """

    kind: ClassVar[str] = "rmd"
    needs_features: ClassVar[bool] = True

    rows: F8
    offset: F8
    k: int

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Class means and the shrunk within-class covariance of the features at unit length.

        Args:    s.h: float[n, d]; y: int64[n], need not be consecutive; seed: unused.
        Raises:  ValueError for fewer than two classes in y, or features that do not vary.
        """
        h = as_matrix("rmd", "features", s.h)
        check_fit_rows("rmd", h, y, 2)
        h = unit_rows(h)
        classes, index, count = np.unique(y, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError("rmd: the labels hold one class only; give rows of every class")
        means = np.stack([h[index == c].mean(0) for c in range(len(classes))])
        mu = h.mean(0)
        within = h - means[index]
        if not np.abs(within).max() > FLOAT32_NOISE:
            raise ValueError("rmd: the features of a class are all alike; check the features output")
        lower = np.linalg.cholesky(shrunk_covariance(within))
        class_offsets = np.linalg.solve(lower, (means - mu).T)
        basis, size, _ = np.linalg.svd(class_offsets * np.sqrt(count / len(h)), full_matrices=False)
        basis = basis[:, size > 1e-6 * size[0]]
        between = np.square(size[: basis.shape[1]])
        project = np.linalg.solve(lower.T, basis).T
        centres = basis.T @ class_offsets
        shared = np.sqrt(between / (1 + between))[:, None] * project
        rows = np.concatenate([-2 * centres.T @ project, shared])
        constant = np.concatenate([np.square(centres).sum(0), np.zeros(len(shared))])
        return cls(read_only(rows), read_only(constant - rows @ mu), len(classes))

    def score(self, s: Signals, /) -> F8:
        """The squared Mahalanobis distance to the nearest class minus that to all classes together.

        Returns: float64[n], negative for a row that is typical of a class.
        Raises:  ValueError if h does not have the fitted width.
        Cost:    O(n d k): about 11 us at n=1, k=10, d=96.
        Source:  Ren et al., arXiv 2106.09022, eq. 2-3. Deviations: h at unit length; S_w shrunk (Ledoit-Wolf)
                 and the background covariance S_w plus the between-class scatter of the class means.
        """
        h = unit_rows(as_matrix("rmd", "features", s.h, self.rows.shape[1]))
        projected = h @ self.rows.T + self.offset
        shared = projected[:, self.k :]
        score: F8 = np.vecdot(shared, shared) + projected[:, : self.k].min(1)
        return score
