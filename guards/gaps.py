"""Missing values as patterns: which columns are missing together, and how rare that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.rows import F8

PATTERNS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """The patterns of missing values seen in fit, the 64 most frequent, and the rarity of any pattern.

    A known pattern has -log of its share, another one that of the nearest known pattern plus, for each column
    that differs, -log of the share of rows where that column is missing (or is not), and at least `unseen`.

    nats: float64[p], of each pattern less what its present columns would cost; per_gap: float64[f, p], what
    each missing value adds; sizes: float64[p], and signs: float64[f, p]: the same for the number of columns
    that differ; unseen: nats.
    """

    nats: F8
    per_gap: F8
    sizes: F8
    signs: F8
    unseen: float

    @classmethod
    def fit(cls, here: NDArray[np.bool_]) -> Self:
        """Count the patterns of n rows. here: bool[n, f], which values are known.

        Source:  Good, Biometrika 40 (1953): patterns seen once estimate the share of unseen ones.
        """
        gone = ~here
        n = len(gone)
        patterns, counts = np.unique(gone, axis=0, return_counts=True)
        kept = np.argsort(-counts, kind="stable")[:PATTERNS]
        flags = patterns[kept].T.astype(np.float64)
        missing, present = (-np.log((1 + one.sum(0)) / (1 + n))[:, None] for one in (gone, ~gone))
        return cls(
            read_only((flags * present).sum(0) - np.log(counts[kept] / n)),
            read_only((1 - flags) * missing - flags * present),
            read_only(flags.sum(0)),
            read_only(1 - 2 * flags),
            -math.log((1 + int((counts == 1).sum())) / (1 + n)),
        )

    @property
    def ever(self) -> bool:
        """Whether any value was missing in fit."""
        return bool(self.sizes.any())

    def rarities(self, here: NDArray[np.bool_]) -> F8:
        """How rare the pattern of each row is: float64[n] nats, >= 0; 0 for one that all rows of fit had."""
        gone = np.where(here, 0.0, 1.0)
        nearest: F8 = (gone @ self.per_gap + self.nats).min(1)
        if not self.ever:
            return nearest
        differs = (gone @ self.signs + self.sizes).min(1)
        rarity: F8 = np.maximum(nearest, self.unseen * np.minimum(differs, 1.0))
        return rarity
