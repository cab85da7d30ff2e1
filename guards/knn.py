"""kNN: the distance to the nearest prototype, and whether that prototype's class is the predicted one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.detector import I8, as_matrix, check_fit_rows, unit_rows
from guards.prototypes import distance, half_squared_norms, prototypes, proximity
from guards.rows import F8, Signals

PROTOTYPES = 512


@dataclass(frozen=True, slots=True, eq=False)
class Knn:
    """Prototypes of the features at unit length.

    centres: float32[m, d]; halves: float32[m], half their squared lengths; labels: int64[m], their classes.
    """

    kind: ClassVar[str] = "knn"
    needs_features: ClassVar[bool] = True

    centres: NDArray[np.float32]
    halves: NDArray[np.float32]
    labels: I8

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int, m: int = PROTOTYPES) -> Self:
        """Prototypes by k-means++ and five Lloyd steps, m divided evenly over the classes.

        Args:    s.h: float[n, d]; y: int64[n]; seed: of the k-means++ draws; m: prototypes in all, >= 1.
        Raises:  ValueError for m < 1 or fewer than two rows.
        """
        h = as_matrix("knn", "features", s.h)
        check_fit_rows("knn", h, y, 2)
        if m < 1:
            raise ValueError(f"knn: needs one prototype or more, not {m}")
        found, labels = prototypes(unit_rows(h), y, m, seed)
        centres = found.astype(np.float32)
        return cls(read_only(centres), read_only(half_squared_norms(centres)), read_only(labels))

    def score(self, s: Signals, /) -> F8:
        """The distance to the nearest prototype.

        The search is one float32 matrix product; the distance to the prototype found is then computed in
        float64 by subtraction.

        Returns: float64[n] in [0, 2].
        Raises:  ValueError if h does not have the fitted width.
        Cost:    O(n m d): about 15 us at n=1, m=512, d=96.
        Source:  Sun et al., ICML 2022 (features at unit length). Deviation: the nearest prototype, not the
                 k-th nearest of all training rows.
        """
        h, close = self._proximity(s.h)
        return distance(h, self.centres, close.argmax(1))

    def disagreement(self, h: NDArray[Any], predicted: NDArray[np.int64]) -> F8:
        """Distance to the nearest prototype of the predicted class minus distance to the nearest of all.

        Args:    h: float32[n, d]; predicted: int64[n], in the numbering of the labels used in fit.
        Returns: float64[n] in [0, 2]; exactly 0 where the classes agree. For a class without prototypes the
                 distance to the farthest prototype is used.
        Raises:  ValueError if h does not have the fitted width.
        Cost:    O(n m d), as `score`.
        Source:  docs/guards.md, knn.
        """
        unit_h, close = self._proximity(h)
        own = self.labels == predicted[:, None]
        seen = own.sum(1, keepdims=True) > 0
        theirs = np.where(seen, np.where(own, close, -np.inf), -close).argmax(1)
        nearest = distance(unit_h, self.centres, close.argmax(1))
        nearer: F8 = np.maximum(distance(unit_h, self.centres, theirs) - nearest, 0.0)
        return nearer

    def _proximity(self, h: NDArray[Any] | None) -> tuple[F8, NDArray[np.float32]]:
        unit_h = unit_rows(as_matrix("knn", "features", h, self.centres.shape[1]))
        return unit_h, proximity(unit_h.astype(np.float32), self.centres, self.halves)
