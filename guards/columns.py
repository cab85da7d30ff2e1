"""The columns of a table, each on a scale of its own: what is known of a value by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.atoms import FLOAT32_NOISE
from guards.rarity import TAIL, TAIL_ROWS
from guards.rows import F8

CONSTANT_SHARE = 1e-3
HEAVY_QUANTILES = (0.5, 0.8, 0.95, 0.995)
HEAVY, GROWING = 8.0, 2.2
LEAST_EXCESS = 0.05
EXCESS_QUANTILE, EXCESS_CLIP = 0.9, 4.0
STEP = 1e-3
MAX_EXACT_INTEGER = 2.0**23
MAX_FLOAT64 = float(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Statistics of each column, all float64[f], of the values known in fit.

    fill: the median, rounded in whole columns, for a missing value. heavy: 1 if the column has a heavy tail,
    else 0; its values u are bent first, to sign(u) log(1 + |u|) with u = (x - centre) / spread: the deviation
    from the median, in median deviations. mean, scale: of the values, bent or not. large, at_large: the line
    slope * z + value that gives the nats of a large standardised value z; small, at_small: of a small one, by
    -z. whole: 1 if all known values are integers, else 0.
    """

    fill: F8
    heavy: F8
    centre: F8
    spread: F8
    mean: F8
    scale: F8
    large: F8
    at_large: F8
    small: F8
    at_small: F8
    whole: F8

    @classmethod
    def fit(cls, x: F8) -> Self:
        """Fit on float64[n, f], NaN or infinity where a value is missing.

        A constant column has a scale of one, or of a thousandth of its value if that is larger; no column has
        less than float32 noise.
        """
        known = np.isfinite(x)
        columns = [_column(column[here]) for column, here in zip(x.T, known.T, strict=True)]
        return cls(*(read_only(np.array(one, np.float64)) for one in zip(*columns, strict=True)))

    def filled(self, x: F8, here: NDArray[np.bool_]) -> F8:
        """float64[n, f] with a usual value where one is missing. here: bool[n, f], from `known`."""
        return np.where(here, x, self.fill)

    def standard(self, filled: F8) -> F8:
        """The standardised values: float64[n, f]."""
        if self.heavy.any():
            filled = np.where(self.heavy > 0, _bent(filled, self.centre, self.spread), filled)
        standard: F8 = (filled - self.mean) / self.scale
        return standard

    def rarities(self, standard: F8) -> F8:
        """About -log P(a value as far out on its side): float64[n, f] nats, below 0 for usual values.

        Args:    standard: float64[n, f], from `standard`.
        """
        nats: F8 = np.maximum(standard * self.large + self.at_large, self.at_small - standard * self.small)
        return nats

    def fractions(self, filled: F8) -> F8:
        """The distance to an integer in whole columns, 0 elsewhere: float64[n, f]."""
        broken: F8 = np.abs(filled - np.rint(filled)) * self.whole
        return broken


def known(x: F8) -> NDArray[np.bool_]:
    """bool[n, f]: which values are neither NaN nor infinite."""
    finite: NDArray[np.bool_] = np.abs(x) <= MAX_FLOAT64
    return finite


def tail_line(scores: F8, least: float) -> tuple[float, float]:
    """Slope and value at 0 of the nats of a large score: a line through the tail.

    The tail begins at the smallest score that at most 5 % of the rows reach (10 rows, if 5 % are fewer). It
    is exponential, or geometric if scores come in steps: slope log(1 + step / m) / step, m the mean excess,
    in which single values count with at most four times the excess of the last tenth: gross errors in 1 row
    of 200 do not hide others, and a small group of good rows that lies apart is none.

    Args:    scores: float64[n >= 1], finite; least: the smallest mean excess, > 0.
    Source:  Pickands, Annals of Statistics 3 (1975). Deviation: shape 0, and clipped excesses.
    """
    ranked = np.sort(scores)
    n = len(ranked)
    most = max(TAIL, TAIL_ROWS / n) * n
    start = ranked[max(0, min(n - 1, n - int(most)))]
    if n - np.searchsorted(ranked, start) > most and start < ranked[-1]:
        start = ranked[np.searchsorted(ranked, start, "right")]
    reach = n - int(np.searchsorted(ranked, start))
    excess = ranked[n - reach :] - start
    clip = EXCESS_CLIP * float(np.quantile(excess, EXCESS_QUANTILE))
    mean = max(float(np.minimum(excess, clip).mean()), least)
    steps = np.diff(np.unique(excess))
    step = float(steps.min()) if len(steps) else 0.0
    slope = float(np.log1p(step / mean) / step) if step > STEP * mean else 1.0 / mean
    return slope, float(-np.log(reach / n) - start * slope)


def _bent(x: F8, centre: F8 | float, spread: F8 | float) -> F8:
    u = (x - centre) / spread
    bent: F8 = np.log(1.0 + np.maximum(u, 0.0)) - np.log(1.0 + np.maximum(-u, 0.0))
    return bent


def _column(x: F8) -> tuple[float, ...]:
    """The fields of `Columns` for the known values of one column, float64[n]; zeros for none."""
    whole = len(x) > 0 and bool(((x == np.rint(x)) & (np.abs(x) < MAX_EXACT_INTEGER)).all())
    x = x if len(x) else np.zeros(1)
    largest = float(np.abs(x).max())
    least = FLOAT32_NOISE * largest if np.ptp(x) > 0 else max(1.0, CONSTANT_SHARE * largest)
    centre = float(np.median(x))
    deviations = np.abs(x - centre)
    off = deviations[deviations > least]
    spread = float(np.median(off)) if len(off) else least
    heavy = len(off) > 0 and _is_heavy(off)
    values = _bent(x, centre, spread) if heavy else x
    unit = np.log(2.0) if heavy else spread
    mean = float(np.clip(values.mean(), values.min(), values.max()))
    scale = max(float(np.sqrt(np.square(values - mean).mean())), least / spread if heavy else least)
    sides = [_side(sign * (values - mean) / scale, unit / scale) for sign in (1.0, -1.0)]
    fill = float(np.rint(centre)) if whole else centre
    return fill, float(heavy), centre, spread, mean, scale, *sides[0], *sides[1], float(whole)


def _side(z: F8, unit: float) -> tuple[float, float]:
    """The line of one side; the mean excess is at least a twentieth of the way from median to tail."""
    way = float(np.quantile(z, 1 - TAIL) - np.median(z))
    return tail_line(z, LEAST_EXCESS * (way if way > FLOAT32_NOISE else unit))


def _is_heavy(deviations: F8) -> bool:
    """Whether the distances from the median have a tail that is clearly heavier than exponential."""
    half, most, last, extreme = np.quantile(deviations, HEAVY_QUANTILES)
    return bool(extreme > HEAVY * half and extreme - last > GROWING * (last - most))
