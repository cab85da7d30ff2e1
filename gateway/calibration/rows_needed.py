"""How many rows of a whole calibration file a promise takes, and which promise a file supports."""

from __future__ import annotations

import math

import numpy as np

from gateway.calibration.folds import SHARES
from guards.order_statistic import samples_needed
from guards.selective import Counts, accepted_needed, margins

SURE_OF_PASSING = 1.3
"""Standard deviations: about nine calibrations in ten pass."""


def file_rows(fold: str, rows: int) -> int:
    """The least number of rows in the file that leaves `rows` to a fold."""
    n = math.ceil(rows / SHARES[fold])
    while int(SHARES[fold] * n) < rows:
        n += 1
    return n


def rows_for_budget(budget: float, delta: float) -> int:
    """Rows of a file that can certify a false-alarm budget at all."""
    return file_rows("cut", samples_needed(budget, delta))


def least_budget(cut_rows: int, delta: float) -> float:
    """The least budget, rounded up to two digits, that so many rows of the fold `cut` can certify."""
    return _rounded_up(-math.expm1(math.log(delta) / cut_rows)) if cut_rows else 1.0


def rows_for_error(r: float, delta: float, wrong: float) -> int:
    """Rows of a file that certify an error of r, if a share `wrong` < r of all answers is wrong.

    Every answer counts as accepted: where a cut rejects many of them, it takes as many more. For `wrong`
    above 0 the number that nine calibrations in ten pass with, by the normal approximation of `margins`.
    """
    if not wrong:
        return file_rows("risk", accepted_needed(0, r, delta))
    low, high = 1, accepted_needed(0, r, delta)
    while _margin(high, r, delta, wrong) < SURE_OF_PASSING:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        passes = _margin(middle, r, delta, wrong) >= SURE_OF_PASSING
        low, high = (low, middle) if passes else (middle, high)
    return file_rows("risk", high)


def _margin(rows: int, r: float, delta: float, wrong: float) -> float:
    return float(margins(np.array(rows), np.array(round(wrong * rows)), r, delta, 1.0))


def supported_error(surest: Counts, delta: float) -> float:
    """The least error, rounded up to two digits, that these counts certify; 1 for no row."""
    return _rounded_up(surest.bound(delta))


def _rounded_up(share: float) -> float:
    """The share in two digits, not below itself."""
    if not 0 < share < 1:
        return min(1.0, max(0.0, share))
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return round(math.ceil(share / unit - 1e-9) * unit, 12)
