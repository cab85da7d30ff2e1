"""Rarity: minus the log of the estimated share of good rows that score at least as high, in nats.

The common scale of all detectors and guards. An estimate without a guarantee: validity comes from the
certified cut alone (docs/guards.md, section 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from guards.arrays import read_only
from guards.atoms import SCORES, Resolution, atom_starts, measured
from guards.rows import F8

TAIL = 0.05
TAIL_ROWS = 10
KNOTS = 512
MIN_ROWS = 20
LEAST_SCALE = 10.0
SMALLEST = 1e-9
MEAN_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The survival function of one score on held-out good rows, with an exponential tail.

    values: float64[m <= 512], knots, ascending; rarities: float64[m], nats at the knots; scale: of the
    exponential beyond the last knot, in units of the score.
    """

    values: F8
    rarities: F8
    scale: float

    @classmethod
    def fit(cls, scores: F8, *, floor: float = 0.0, resolution: Resolution = SCORES) -> Self:
        """Estimate the survival function of the score.

        The body is empirical; the last knot is the smallest score that at most 5 % of the rows reach (10
        rows, if 5 % are fewer), and beyond it the survival is exponential with the mean excess as its scale.
        Scores that differ by no more than the tolerance are one knot, and the scale is at least ten
        tolerances: noise of a hundredth of one moves the rarity by a thousandth of a nat in the tail, and
        between two knots by a hundredth of their difference. Knots are thinned evenly in rank.

        Args:    scores: float64[n >= 20] of held-out good rows. floor: the least scale, in units of the
                 score, for scores that are constant on good rows: an excess of one floor is one nat.
                 resolution: what counts as equal, in units of the score.
        Raises:  ValueError for fewer rows, or for NaN or infinity.
        Source:  docs/guards.md, rarity; Pickands, Annals of Statistics 3 (1975). Deviation: shape 0.
        """
        if scores.ndim != 1 or len(scores) < MIN_ROWS or not np.isfinite(scores).all():
            raise ValueError(
                f"Tail: needs {MIN_ROWS} or more finite scores, not {list(scores.shape)}; give more rows"
            )
        ranked = np.sort(scores)
        starts = atom_starts(ranked, resolution)
        values, reach = ranked[starts], (len(ranked) - starts) / len(ranked)
        share = max(TAIL, TAIL_ROWS / len(scores))
        last = min(int(np.searchsorted(-reach, -share)), len(values) - 1)
        kept = np.unique(np.linspace(0, last, min(KNOTS, last + 1)).round().astype(np.int64))
        start = float(values[last])
        excess = float((ranked[starts[last] :] - start).mean())
        noise = max(LEAST_SCALE * resolution.tolerance(start), SMALLEST * max(1.0, abs(start)))
        least = max(floor, 1e-3 * (start - float(values[0])), noise)
        return cls(read_only(values[kept]), read_only(-np.log(reach[kept])), max(excess, least))

    def rarity(self, scores: F8) -> F8:
        """-log P(S >= s), in nats.

        Args:    scores: float64[n], in the unit of fit.
        Returns: float64[n] >= 0; a continuous, non-decreasing function of the score, strictly increasing past
                 the last knot; infinity at infinity.
        """
        return _rarities([self], [scores])[:, 0]

    def _pieces(self, knots: int) -> F8:
        """float64[3, knots + 1]: start, rarity at the start, and slope of each linear piece.

        Piece i holds from knot i - 1 on; the first is flat, the last is the exponential tail. If `knots`
        exceeds the number of knots, the last piece is repeated; the copies are never selected.
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
    """float64[n, t]: the rarity of score j by tail j, with all tails in the same few array operations.

    Raises:  ValueError if the numbers of scores and tails differ.
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
    """The largest rarity plus a tenth of the mean rarity, so that agreement counts: float64[n].

    Args:    tails, scores: t of each; scores[j] is float64[n] and belongs to tails[j].
    Raises:  ValueError if the numbers of scores and tails differ.
    """
    rarities = _rarities(tails, scores)
    blended: F8 = rarities.max(1) + MEAN_SHARE / len(tails) * rarities.sum(1)
    return blended


@dataclass(frozen=True, slots=True, eq=False)
class Composite:
    """Several scores as one rarity: the rarity of the blend of their rarities. outer: the blend's tail."""

    tails: tuple[Tail, ...]
    outer: Tail

    @classmethod
    def fit(cls, scores: Sequence[F8], shaken: Sequence[F8]) -> Self:
        """Fit the tails of several scores, then the tail of their blend.

        Args:    scores: float64[n] each, of the same n >= 20 held-out good rows. shaken: the same with noise
                 of `atoms.FLOAT32_NOISE` on the detectors' inputs, from which each resolution is measured.
        Raises:  ValueError as `Tail.fit`.
        """
        pairs = zip(scores, shaken, strict=True)
        tails = tuple(Tail.fit(score, resolution=measured(score, other)) for score, other in pairs)
        blended = blend(tails, scores)
        resolution = measured(blended, blend(tails, shaken))
        return cls(tails, Tail.fit(blended, resolution=max(resolution, SCORES, key=lambda one: one.absolute)))

    def rarity(self, scores: Sequence[F8]) -> F8:
        """float64[n] nats, >= 0.

        Args:    scores: as many as in fit and in the same order, float64[n] each.
        Raises:  ValueError for another number of scores.
        """
        return self.outer.rarity(blend(self.tails, scores))
