"""Any score as a rarity in nats: how seldom good traffic looks this suspicious.

The common currency of detectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from guards.arrays import frozen
from guards.rows import F8

TAIL = 0.05
TAIL_ROWS = 10
KNOTS = 512
LEAST = 20
SMALLEST = 1e-9
MEAN_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The distribution of one score on held-out good rows, smooth where they run out.

    values: float64[m <= 512] ascending, rarities: float64[m] at these; scale: of the exponential beyond the
    last.
    """

    values: F8
    rarities: F8
    scale: float

    @classmethod
    def fit(cls, scores: F8, *, floor: float = 0.0) -> Self:
        """Learn how rare each score is.

        The body is empirical; the last knot is the smallest score which at most 5 % reach (10 rows, if 5 %
        are fewer), and beyond it the survival is exponential with the mean excess for its scale. Knots are
        thinned evenly in rank.

        Args:    scores: float64[n >= 20] of held-out good rows. floor: the least scale, in units of the
                 score, for one that is all ties where nothing is wrong (whatever exceeds it by one floor
                 gains one nat).
        Raises:  ValueError for fewer rows, or for NaN or infinity.
        Source:  guards.md, "One risk"; Pickands 1975 for the tail, here with shape 0.
        """
        if scores.ndim != 1 or len(scores) < LEAST or not np.isfinite(scores).all():
            raise ValueError(
                f"Tail: needs {LEAST} or more finite scores, not {list(scores.shape)}; give more rows"
            )
        values, count = np.unique(scores, return_counts=True)
        reach = np.cumsum(count[::-1])[::-1] / len(scores)
        share = max(TAIL, TAIL_ROWS / len(scores))
        last = min(int(np.searchsorted(-reach, -share)), len(values) - 1)
        kept = np.unique(np.linspace(0, last, min(KNOTS, last + 1)).round().astype(np.int64))
        start = values[last]
        excess = float((scores[scores >= start] - start).mean())
        least = max(floor, 1e-3 * float(start - values[0]), SMALLEST * max(1.0, abs(float(start))))
        return cls(frozen(values[kept]), frozen(-np.log(reach[kept])), max(excess, least))

    def rarity(self, scores: F8) -> F8:
        """-log P(S >= s), in nats.

        Returns: float64[n] >= 0; continuous; never falling; strictly rising past the last knot; infinity at
                 infinity.
        """
        return _rarities([self], [scores])[:, 0]

    def _pieces(self, knots: int) -> F8:
        """float64[3, knots + 1]: where each straight piece starts, at what rarity, and how steep it is.

        Piece i holds from knot i - 1 on; the first is flat, the last is the exponential tail. Of more knots
        than there are, the last is repeated, out of reach.
        """
        spare = knots - len(self.values)
        start = np.pad(self.values, (1, spare), "edge")
        rarity = np.pad(self.rarities, (1, spare), "edge")
        slope = np.pad(np.diff(self.rarities) / np.diff(self.values), (1, 0))
        return np.stack([start, rarity, np.pad(np.append(slope, 1 / self.scale), (0, spare), "edge")])


@lru_cache(maxsize=64)
def _pieces_of(tails: tuple[Tail, ...]) -> tuple[F8, F8, F8, F8]:
    """The knots of each tail, float64[t, m], and the pieces between them, float64[m + 1, t] each."""
    most = max(len(tail.values) for tail in tails)
    knots = [np.pad(tail.values, (0, most - len(tail.values)), constant_values=np.inf) for tail in tails]
    start, rarity, slope = np.stack([tail._pieces(most) for tail in tails], axis=2)
    return np.stack(knots), start, rarity, slope


def _rarities(tails: Sequence[Tail], scores: Sequence[F8]) -> F8:
    """float64[n, t]: score j by tail j; all tails in the same few steps, which is what they cost when served.

    Raises:  ValueError if there are not as many scores as tails.
    """
    if len(tails) != len(scores):
        raise ValueError(f"rarity: {len(scores)} scores for {len(tails)} tails; calibrate again")
    knots, start, rarity, slope = _pieces_of(tuple(tails))
    s = np.maximum(np.stack(scores, axis=1), start[0])
    piece = (s[:, :, None] >= knots).sum(2)
    along = s - np.take_along_axis(start, piece, 0)
    found: F8 = np.take_along_axis(rarity, piece, 0) + along * np.take_along_axis(slope, piece, 0)
    return found


def blend(tails: Sequence[Tail], scores: Sequence[F8]) -> F8:
    """The rarest voice plus a tenth of the mean, so that agreement counts: float64[n], one score a tail.

    Raises:  ValueError if there are not as many scores as tails.
    """
    rarities = _rarities(tails, scores)
    blended: F8 = rarities.max(1) + MEAN_SHARE / len(tails) * rarities.sum(1)
    return blended


@dataclass(frozen=True, slots=True, eq=False)
class Composite:
    """Several scores as one rarity: blend their rarities, then ask how rare that is."""

    tails: tuple[Tail, ...]
    outer: Tail

    @classmethod
    def fit(cls, scores: Sequence[F8]) -> Self:
        """From several scores, each float64[n], of the same n held-out good rows. Raises as `Tail.fit`."""
        tails = tuple(Tail.fit(score) for score in scores)
        return cls(tails, Tail.fit(blend(tails, scores)))

    def rarity(self, scores: Sequence[F8]) -> F8:
        """float64[n] nats, >= 0. Raises ValueError if there are not as many scores as in fit."""
        return self.outer.rarity(blend(self.tails, scores))
