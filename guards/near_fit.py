"""What calibration keeps for a memory of queries: how rows become coarse, and honest rows without detail.

The cuts belong to the salt, and a salt is as old as the process that drew it. So calibration keeps what is
left of honest rows when detail is dropped, and each start certifies the cuts anew, with the salt that serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.coarse import F4, MIN_ROWS, Coarse
from guards.fingerprints import KEPT, LEAST_VALUES, QUANTUM, Fingerprints, Prints
from guards.near_cut import FingerprintsMatch, NearCut, least_shared, near_cut
from guards.near_pairs import Cuts
from guards.query_rings import RING
from guards.query_sketch import Sketches, code_of

MOST_ROWS: Final = 4096
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class NearCuts:
    """own: for the latest 1,024 queries of the row's own principal; any: for all that are retained; shared:
    fingerprints in common that match as well, more than there are if they would match too often.
    """

    own: NearCut
    any: NearCut
    shared: int

    @property
    def cuts(self) -> Cuts:
        return Cuts(self.own.cut, self.any.cut, self.shared)

    @property
    def honest_rate(self) -> float:
        """The share of honest rows that are near a retained query, at most."""
        return self.own.share + self.any.share


@dataclass(frozen=True, slots=True, eq=False)
class NearFit:
    """coarse: fitted; points: int16[n, k] of n honest rows, all different (`Coarse.points`); digits:
    uint8[n, d], their levels in steps of 50, of which fingerprints are made; [n, 0] of tables.
    """

    coarse: Coarse
    points: NDArray[np.int16]
    digits: NDArray[np.uint8]

    @classmethod
    def fit(cls, x: F4) -> Self:
        """Args:    x: float32[n, ...] honest rows, as in `Coarse.fit`. Rows with a value that is not finite
                 are left out, as are repetitions, and what is beyond 4,096.
        Raises:  ValueError as `Coarse.fit`.
        """
        flat = x.reshape(len(x), -1)
        whole = x[np.isfinite(flat).all(1)] if flat.size else x
        if len(whole) < MIN_ROWS:
            raise ValueError(f"queries: needs {MIN_ROWS} rows without missing values, not {len(whole)}")
        coarse = Coarse.fit(whole)
        levels = coarse.levels(whole)
        _, first = np.unique(levels, axis=0, return_index=True)
        levels = levels[np.sort(first)[:MOST_ROWS]]
        points = coarse.points(levels).astype(np.int16)
        has_prints = x.ndim > 2 and levels.shape[1] >= LEAST_VALUES
        digits = (levels // QUANTUM).astype(np.uint8) if has_prints else np.zeros((len(levels), 0), np.uint8)
        return cls(coarse, read_only(points), read_only(digits))

    def cuts(self, salt: bytes, retained: int, share: float, delta: float) -> NearCuts:
        """The cuts of a salt: at most `share` of honest rows are near, half of it own and half any query.

        Args:    salt: at least 16 bytes; retained, delta: as of `near_cut`. Each half holds with 1 - delta.
        Raises:  ValueError if the rows are too few, with how many are needed.
        Cost:    O(n^2): half a second for 4,096 pictures.
        """
        sketches, half = self._sketches(salt), share / 2
        try:
            number = least_shared(sketches, (RING, retained), half, seed=SEED)
            return self._certified(sketches, retained, half, delta, number)
        except FingerprintsMatch:
            return self._certified(sketches, retained, half, delta, KEPT + 1)

    def _certified(
        self, sketches: Sketches, retained: int, half: float, delta: float, shared: int
    ) -> NearCuts:
        own, every = (
            near_cut(sketches, held, half, delta, seed=SEED, least_shared=shared) for held in (RING, retained)
        )
        return NearCuts(own, every, shared)

    def _sketches(self, salt: bytes) -> Sketches:
        bits = code_of(self.coarse, salt).bits(self.points.astype(np.float32))
        n = len(bits)
        prints = Prints.none(n)
        if values := self.digits.shape[1]:
            prints = Fingerprints(salt, values).of(self.digits.astype(np.float32) * QUANTUM + QUANTUM // 2)
        return Sketches(bits, np.arange(n, dtype=np.uint64), prints)
