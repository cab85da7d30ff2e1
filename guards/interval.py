"""Prediction intervals of a regressor: split-conformal, with a normalised residual or the model's quantiles.

Without quantiles the interval is value -+ q difficulty; the difficulty comes from the fold `fit`
(`difficulty.py`). Where the model gives `lower` and `upper` itself, these are moved outward by the same
amount for every row (or inward, where they hold more rows than asked for). In both forms one number q is
chosen on pilot rows: an order statistic of the pilot scores, so that an exchangeable new row lies outside
with probability at most the nominal `miscoverage`.

That probability is a mean over pilot folds. The promise that the gateway prints comes from an exact test on
other rows; `planned_miscoverage` gives the nominal rate with which this test is likely to pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.atoms import Resolution, cut_above
from guards.chance import PASS, chance_to_pass
from guards.difficulty import Constant, Neighbours, typical_size
from guards.rows import F8

LARGEST = float(np.finfo(np.float64).max)
ROUNDINGS = 4 * float(np.finfo(np.float32).eps)
LEAST_RESOLUTION = 5e-7
RELATIVE_RESOLUTION = 2e-5


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Rows with a known y, in difficulties. needed: float64[n], the least q that holds the row; width:
    float64[n], of the interval at q = 0; size: float64[n], their difficulties; resolution: of `needed`.
    """

    needed: F8
    width: F8
    size: F8
    resolution: Resolution

    def factor(self, most: int) -> float:
        """The q with which at most so many rows lie outside, above the atom of the last row inside."""
        return cut_above(np.sort(self.needed), len(self.needed) - most - 1, self.resolution)


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """A fitted interval.

    quantiles: whether it starts at the model's lower and upper instead of its value; q: what moves the ends,
    in difficulties, >= 0 without quantiles; miscoverage: nominal, of the pilot rows.
    """

    difficulty: Neighbours | Constant
    quantiles: bool
    q: float
    miscoverage: float

    @classmethod
    def fit(
        cls,
        t: NDArray[Any] | None,
        value: NDArray[Any],
        y: NDArray[Any],
        lower: NDArray[Any] | None,
        upper: NDArray[Any] | None,
        pilot_t: NDArray[Any] | None,
        pilot_value: NDArray[Any],
        pilot_y: NDArray[Any],
        pilot_lower: NDArray[Any] | None,
        pilot_upper: NDArray[Any] | None,
        miscoverage: float,
        seed: int,
    ) -> Self:
        """Fit the difficulty on the first rows and q on the pilot rows, which share no row.

        At most floor(miscoverage (n + 1)) - 1 of n pilot rows lie outside; q lies above the atom of the last
        score inside, so that rows that repeat stay inside when they are served with another last digit.

        Args:    t, pilot_t: float32[n, f] or None for a model that reads no table; value, y, lower, upper:
                 numbers[n], finite; lower and upper both or neither. miscoverage: in (0, 1).
        Raises:  ValueError for arrays of other shapes, numbers that are not finite, or too few pilot rows.
        Cost:    O(pilot rows x kept rows x f).
        Source:  Lei et al., JASA 113 (2018), section 5.2 (normalised residuals); Romano et al., NeurIPS 2019
                 (quantiles); Vovk et al., 2005, section 2.2 (the order statistic).
        """
        value, y, lower, upper = _numbers(value, y, lower, upper)
        pilot = _numbers(pilot_value, pilot_y, pilot_lower, pilot_upper)
        most = _most_outside(len(pilot[1]), miscoverage)
        unscaled = cls(_difficulty(t, value, y, lower, upper, seed), lower is not None, 0.0, miscoverage)
        return replace(unscaled, q=unscaled.scores(pilot_t, *pilot).factor(most))

    def scores(
        self,
        t: NDArray[Any] | None,
        value: NDArray[Any],
        y: NDArray[Any],
        lower: NDArray[Any] | None,
        upper: NDArray[Any] | None,
    ) -> Scores:
        """How far outside these rows lie. Arguments, errors and cost as of `bounds`, with y: numbers[n]."""
        value, y, lower, upper = _numbers(value, y, lower, upper)
        size = self.difficulty.of(t, value)
        low, high = _both(lower, upper) if self.quantiles else (value, value)
        noise = np.quantile(ROUNDINGS * np.maximum(np.abs(low), np.abs(high)) / size, 0.99)
        resolution = Resolution(max(LEAST_RESOLUTION, float(noise)), RELATIVE_RESOLUTION)
        return Scores(np.maximum(low - y, y - high) / size, (high - low) / size, size, resolution)

    def bounds(
        self,
        t: NDArray[Any] | None,
        value: NDArray[Any],
        lower: NDArray[Any] | None,
        upper: NDArray[Any] | None,
    ) -> tuple[F8, F8]:
        """The ends of each row's interval.

        Args:    as in `fit`, for n rows; lower and upper are read only if the interval was fitted on them.
        Returns: lower and upper, float64[n] each, lower <= upper, finite for finite arguments; each row's the
                 same to the last bit in every batch. A larger q gives an interval that holds the smaller's.
                 Where q < 0 would turn the ends around, both are the point halfway.
        Raises:  ValueError if t does not have the fitted width, or lower and upper are missing.
        Cost:    that of the difficulty: O(n m f), 30 us a row at f = 10; without, 8 us a batch.
        """
        centre = value.astype(np.float64)
        low, high = _both(lower, upper) if self.quantiles else (centre, centre)
        middle = low / 2 + high / 2
        with np.errstate(over="ignore"):
            reach = self.q * self.difficulty.of(t, centre)
            low, high = np.minimum(low - reach, middle), np.maximum(high + reach, middle)
        return np.clip(low, -LARGEST, LARGEST), np.clip(high, -LARGEST, LARGEST)


def planned_miscoverage(r: float, delta: float, n_pilot: int, n_test: int) -> float:
    """The largest nominal miscoverage whose interval passes the later exact test with a chance of 95 %.

    Args:    r: the promise, delta: the level of its test, in (0, 1); n_pilot >= 1; n_test: accepted rows.
    Returns: (j + 1) / (n_pilot + 1) for the largest such j; for j = 0, the widest interval that these pilot
             rows give, where even that has a smaller chance.
    Raises:  ValueError for a rate outside (0, 1) or no pilot row.
    Cost:    O(n_test log n_pilot).
    """
    if not (0 < r < 1 and 0 < delta < 1):
        raise ValueError(f"interval: r is {r}, delta {delta}; both must lie strictly between 0 and 1")
    if n_pilot < 1:
        raise ValueError("interval: there is no pilot row; give more rows")
    low, high = 0, n_pilot
    while high - low > 1:
        middle = (low + high) // 2
        likely = chance_to_pass(middle, n_pilot, n_test, r, delta) >= PASS
        low, high = (middle, high) if likely else (low, middle)
    return (low + 1) / (n_pilot + 1)


def _most_outside(n: int, miscoverage: float) -> int:
    """How many of n pilot rows may lie outside; the tolerance keeps (j + 1) / (n + 1) at j."""
    if not 0 < miscoverage < 1:
        raise ValueError(f"interval: miscoverage is {miscoverage}; it must lie strictly between 0 and 1")
    most = math.floor(miscoverage * (n + 1) + 1e-9) - 1
    if most < 0:
        needed = math.ceil(1 / miscoverage - 1e-9) - 1
        raise ValueError(
            f"interval: {n} pilot rows give no interval that misses {miscoverage:.3g} of the rows; "
            f"{needed} would do"
        )
    return most


def _difficulty(
    t: NDArray[Any] | None, value: F8, y: F8, lower: F8 | None, upper: F8 | None, seed: int
) -> Neighbours | Constant:
    if lower is not None and upper is not None:
        return Constant(typical_size(np.abs(upper - lower)))
    residuals = np.abs(y - value)
    return Constant(typical_size(residuals)) if t is None else Neighbours.fit(t, value, residuals, seed)


def _numbers(
    value: NDArray[Any], y: NDArray[Any], lower: NDArray[Any] | None, upper: NDArray[Any] | None
) -> tuple[F8, F8, F8 | None, F8 | None]:
    """As float64[n], all finite."""
    if (lower is None) != (upper is None):
        raise ValueError("interval: the model gives one of lower and upper; give both or neither")
    found = [None if a is None else a.astype(np.float64) for a in (value, y, lower, upper)]
    for name, a in zip(("value", "y", "lower", "upper"), found, strict=True):
        if a is not None and (a.shape != (len(y),) or not np.isfinite(a).all()):
            raise ValueError(f"interval: {name} is not one finite number for each of {len(y)} rows")
    first, second, *ends = found
    assert first is not None and second is not None
    return first, second, ends[0], ends[1]


def _both(lower: NDArray[Any] | None, upper: NDArray[Any] | None) -> tuple[F8, F8]:
    if lower is None or upper is None:
        raise ValueError("interval: needs the model's lower and upper, as when it was fitted")
    return lower.astype(np.float64), upper.astype(np.float64)
