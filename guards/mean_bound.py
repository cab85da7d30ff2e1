"""A certified upper bound of a mean loss: the hedged-capital bound, by betting against the mean.

The losses are n independent draws from [0, 1] with mean m. A bet of `nu_i` in [0, 1], which may depend on the
losses before the i-th alone, multiplies the capital by 1 - nu_i (loss_i - m). At the true mean the expected
factor is 1, so the capital is a nonnegative martingale that begins at 1, and by Ville's inequality it ever
reaches 1 / delta with probability at most delta. A mean at which it does so is rejected, and with it every
larger one, since each factor rises with m. The bound is the least mean that is rejected.

The order of the losses matters: it has to be independent of their values. Calibration passes rows in the
order of the seeded permutation of the file. The same losses in the same order give the same bound.
"""

from __future__ import annotations

import math

import numpy as np

from guards.rows import F8

FIRST_MEAN, FIRST_VARIANCE = 0.5, 0.25
"""What the bets assume before the first loss, with the weight of one loss."""
PRECISION = 1e-12


def upper_mean_bound(losses: F8, delta: float) -> float:
    """The least mean that the losses reject: the true mean is at most this with probability 1 - delta.

    Args:    losses: float64[n] in [0, 1], independent draws in an order that is independent of their values;
             delta: in (0, 1).
    Returns: a number in (0, 1], 1 if nothing below is rejected and for n = 0; rounded up by at most 1e-12.
    Raises:  ValueError for losses outside [0, 1] or of another rank, or delta outside (0, 1).
    Cost:    O(n) memory, O(n) for each of 40 bisection steps: 40 ms at n = 100,000.
    Source:  Waudby-Smith and Ramdas, JRSS-B 86 (2024), section 4; one-sided, with the bets of Bates et al.,
             Distribution-Free, Risk-Controlling Prediction Sets, J. ACM 68 (2021), section 3.1.3.
    """
    bets = _bets(losses, delta)
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if _rejects(losses, bets, middle, delta) else (middle, high)
    return high


def certifies_mean(losses: F8, mean: float, delta: float) -> bool:
    """Whether a true mean above `mean` would give such losses with probability at most delta.

    Args:    losses, delta: as for `upper_mean_bound`; mean: any number. One or more is always certified, zero
             or less never.
    Raises:  as `upper_mean_bound`.
    Cost:    O(n): 4 ms at n = 100,000.
    """
    bets = _bets(losses, delta)
    return mean >= 1 or (mean > 0 and _rejects(losses, bets, mean, delta))


def _bets(losses: F8, delta: float) -> F8:
    """float64[n] in (0, 1]: each from the losses before it, large where these vary little."""
    if not 0 < delta < 1:
        raise ValueError(f"mean_bound: delta is {delta}; it must lie strictly between 0 and 1")
    if losses.ndim != 1 or not ((losses >= 0) & (losses <= 1)).all():
        raise ValueError("mean_bound: the losses are not one number in [0, 1] a row; mend the loss")
    n = len(losses)
    count = np.arange(2, n + 2)
    means = (FIRST_MEAN + np.cumsum(losses)) / count
    variances = (FIRST_VARIANCE + np.cumsum(np.square(losses - means))) / count
    before = np.concatenate([[FIRST_VARIANCE], variances[:-1]])[:n]
    return np.asarray(np.minimum(1.0, np.sqrt(2 * math.log(1 / delta) / (max(n, 1) * before))), np.float64)


def _rejects(losses: F8, bets: F8, mean: float, delta: float) -> bool:
    """Whether the capital reaches 1 / delta at this mean, 0 < mean < 1."""
    with np.errstate(divide="ignore"):  # a whole bet lost: log 0, and the capital stays 0
        logs = np.cumsum(np.log1p(-bets * (losses - mean)))
    return bool(len(logs)) and float(logs.max()) >= math.log(1 / delta)
