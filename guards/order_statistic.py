"""A cut with a promise: how often good rows will reach it, and how sure that is.

Draw n calibration scores of good rows and let k-th be the k-th largest. Whatever the distribution, the share
of good rows that score strictly above it is at most Beta(k, n+1-k) distributed (exactly so if there are no
ties). So the largest k with P(Beta(k, n+1-k) > a) <= delta gives the lowest cut whose false-alarm rate is at
most a with probability 1 - delta over the draw of the calibration data.

An alarm is `score >= cut`, hence the cut is the *next float above* the k-th largest score. Without ties that
changes nothing. With ties it is what keeps the promise: taking the k-th largest itself would alarm on every
good row tied with it, up to all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guards.binomial import log_masses
from guards.rows import F8


@dataclass(frozen=True, slots=True)
class Cut:
    """With probability 1 - delta over n calibration rows, at most a share a of good rows score >= value."""

    value: float
    n: int
    k: int
    a: float
    delta: float


def largest_k(n: int, a: float, delta: float) -> int:
    """The largest k with P(Beta(k, n+1-k) > a) <= delta, 0 if there is none.

    P(Beta(k, n+1-k) > a) is P(Bin(n, a) <= k-1), which rises with k.

    Raises:  ValueError for a or delta outside (0, 1), or a negative n.
    Source:  Wilks 1941; Vovk 2012, proposition 2a.
    """
    _check(a, delta)
    if n < 1:
        return 0
    return int(np.searchsorted(np.cumsum(np.exp(log_masses(n, a)[:n])), delta, "right"))


def samples_needed(a: float, delta: float) -> int:
    """The least n for which any cut can be certified: the least with (1-a)^n <= delta."""
    _check(a, delta)
    n = max(1, math.ceil(math.log(delta) / math.log1p(-a)) - 1)
    while largest_k(n, a, delta) < 1:
        n += 1
    return n


def certified_cut(scores: F8, a: float, delta: float) -> Cut:
    """The lowest cut which good rows reach at a rate of at most a, with probability 1 - delta.

    Args:    scores: float64[n] of good rows, drawn like those to come, unseen by anything that was fitted.
    Returns: value is a float just above the k-th largest score; k - 1 or fewer of the n scores reach it.
    Raises:  ValueError if n is too small, saying how many would do, or if a score is NaN or infinite.
    """
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(
            "certified_cut: the scores hold NaN or infinity, or are not one a row; mend the guard"
        )
    n = len(scores)
    k = largest_k(n, a, delta)
    if k < 1:
        raise ValueError(
            f"certified_cut: {n} samples cannot certify a false-alarm rate of {a:g} "
            f"with probability {1 - delta:g}; {samples_needed(a, delta)} would do"
        )
    value = float(np.nextafter(np.partition(scores, n - k)[n - k], np.inf))
    return Cut(value, n, k, a, delta)


def _check(a: float, delta: float) -> None:
    if not (0 < a < 1 and 0 < delta < 1):
        raise ValueError(f"order_statistic: a is {a}, delta {delta}; both must lie strictly between 0 and 1")
