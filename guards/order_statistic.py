"""The certified false-alarm cut: an order statistic of calibration scores.

For n independent scores of good rows, the share of good rows that score strictly above the k-th largest of
them is Beta(k, n+1-k) distributed, whatever the distribution of the score (stochastically smaller if there
are ties). The largest k with P(Beta(k, n+1-k) > a) <= delta therefore gives the lowest cut whose false-alarm
rate is at most a with probability 1 - delta over the draw of the calibration rows.

An alarm is `score >= cut`, so the cut lies *above* the k-th largest score, halfway to the next larger atom of
scores (`atoms.cut_above`): the k-th largest itself would alarm on every good row tied with it, and one float
above it on those that are served with a score that differs in its last digit. A higher cut stops fewer rows,
so the statement holds for it as well. Assumptions and a table of k: docs/guards.md, sections 4 and 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from guards.atoms import NATS, cut_above
from guards.binomial import log_masses
from guards.rows import F8

MOST_EXACT = 1_000_000
"""Numbers of rows up to which the last digit is checked against the sum of masses."""


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

    P(Beta(k, n+1-k) > a) equals P(Bin(n, a) <= k-1), which rises with k.

    Args:    n: calibration rows; 0 for n < 1. a: the false-alarm budget; delta: the error probability.
    Raises:  ValueError for a or delta outside (0, 1).
    Cost:    O(n).
    Source:  Wilks, Annals of Mathematical Statistics 12 (1941); Vovk, ACML 2012, proposition 2a.
    """
    _check(a, delta)
    if n < 1:
        return 0
    return int(np.searchsorted(np.cumsum(np.exp(log_masses(n, a)[:n])), delta, "right"))


def samples_needed(a: float, delta: float) -> int:
    """The least n for which a cut can be certified: the least with (1-a)^n <= delta.

    Raises:  ValueError for a or delta outside (0, 1).
    Cost:    O(1), and O(n) for the last digit below a million.
    """
    _check(a, delta)
    n = max(1, math.ceil(math.log(delta) / math.log1p(-a)) - 1)
    if n > MOST_EXACT:
        return n + 1
    while largest_k(n, a, delta) < 1:
        n += 1
    return n


def certified_cut(scores: F8, a: float, delta: float) -> Cut:
    """The lowest cut between atoms that good rows reach at a rate of at most a, with probability 1 - delta.

    The rate of rows strictly above the k-th largest score is at most a with that probability, and the cut is
    above this score, so its rate is no larger. It also holds for rows that are served with scores that differ
    from those of calibration: a row reaches the cut only if its calibration score exceeds the k-th largest,
    as long as the difference is less than the room between this score's atom and the cut: half a tolerance of
    `atoms.NATS`, up to five if scores repeat there, where any gap is that wide.

    Args:    scores: float64[n] of good rows, in nats, exchangeable with live good rows and not used in any
             fit. a, delta: in (0, 1).
    Returns: the cut; its value lies above the atom of the k-th largest score, so at most k - 1 of the n
             scores reach it.
    Raises:  ValueError if n is too small, with the number that suffices, or if a score is NaN or infinite.
    Cost:    O(n log n).
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
    return Cut(cut_above(np.sort(scores), n - k, NATS), n, k, a, delta)


def _check(a: float, delta: float) -> None:
    if not (0 < a < 1 and 0 < delta < 1):
        raise ValueError(f"order_statistic: a is {a}, delta {delta}; both must lie strictly between 0 and 1")
