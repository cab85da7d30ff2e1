"""The certified confidence cut: the loosest suspicion at which accepted answers still are rarely wrong.

Learn then Test with a fixed sequence: candidate cuts are ordered from strict to loose without reading a
label. For each in turn the error of the accepted rows is bounded from above (Clopper-Pearson, 1 - delta). The
sequence stops at the first bound over r, and the cut before it is certified. Only the first bad cut could be
accepted wrongly, so no correction for the number of cuts is due.

The candidates are ranks of the suspicion. Given the cut at a fixed rank, the rows below it are independent
draws from the population below it, so the number of wrong ones is binomial. For the first bad cut, whose rank
is random, this assumes that the selective error crosses r once as the cut loosens (as it does where suspicion
rises with error). Assumptions and limits: docs/guards.md, sections 4 and 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guards.binomial import cdf
from guards.rows import F8

COVERAGES = tuple(i / 50 for i in range(2, 51))
START_ERRORS = 2


@dataclass(frozen=True, slots=True)
class Acceptance:
    """With probability 1 - delta, rows with suspicion < cut are wrong at a rate of at most r.

    accepted: how many of the n labelled rows lie below the cut; errors: how many of these are wrong; bound:
    the Clopper-Pearson bound of their error rate; coverage: accepted / n.
    """

    cut: float
    n: int
    accepted: int
    errors: int
    r: float
    delta: float
    bound: float
    coverage: float


def clopper_pearson_upper(errors: int, n: int, delta: float) -> float:
    """The one-sided exact upper bound, at level 1 - delta, of an error rate after `errors` of n; 1 for n = 0.

    Args:    0 <= errors <= n; 0 < delta < 1.
    Cost:    O(n) per bisection step, about 50 steps.
    Source:  Clopper and Pearson, Biometrika 26 (1934). Rounded up by at most 1e-15.
    """
    if errors >= n:
        return 1.0
    if errors == 0:
        return -math.expm1(math.log(delta) / n)
    low, high = errors / n, 1.0
    while high - low > 1e-15:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if cdf(errors, n, middle) > delta else (low, middle)
    return high


def accepted_needed(errors: int, r: float, delta: float) -> int:
    """The least number of accepted rows that certifies r when `errors` of them are wrong."""
    low, high = errors, errors + 1
    while not _is_certified(errors, high, r, delta):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_certified(errors, middle, r, delta) else (middle, high)
    return high


def _is_certified(errors: int, n: int, r: float, delta: float) -> bool:
    """Whether the Clopper-Pearson bound is at most r; one distribution function instead of a bisection."""
    return cdf(errors, n, r) <= delta


def certified_acceptance(
    suspicion: F8, wrong: NDArray[np.bool_], r: float, delta: float, coverages: Sequence[float] = COVERAGES
) -> Acceptance:
    """The loosest cut on suspicion that the fixed sequence certifies.

    The sequence starts at the first candidate whose accepted rows would certify r with two errors (with none,
    if no candidate has that many): stricter candidates often fail by chance, and a failure ends the sequence.
    The start depends on counts alone, not on labels.

    Args:    suspicion: float64[n], wrong: bool[n], of labelled rows exchangeable with live rows and not used
             in any fit. r, delta: in (0, 1). coverages: candidate shares in (0, 1], in any order; rows tied
             with a candidate are not accepted by it.
    Raises:  ValueError if nothing can be certified, with the best bound reached and the number of error-free
             rows that suffices.
    Cost:    O(n log n) plus one O(n) distribution function per candidate.
    Source:  Angelopoulos et al., Learn then Test, arXiv 2110.01052, section 2.3; for the fixed sequence
             Bauer, Statistics in Medicine 10 (1991). Deviation: candidates are ranks of the suspicion.
    """
    _check(suspicion, wrong, r, delta)
    order = np.argsort(suspicion, kind="stable")
    ranked, errors = suspicion[order], np.concatenate([[0], np.cumsum(wrong[order])])
    n = len(ranked)
    candidates = _candidates(ranked, coverages)
    least = accepted_needed(START_ERRORS, r, delta)
    if not any(accepted >= least for accepted, _ in candidates):
        least = accepted_needed(0, r, delta)
    passed = None
    for accepted, cut in (one for one in candidates if one[0] >= least):
        if not _is_certified(int(errors[accepted]), accepted, r, delta):
            break
        passed = accepted, cut
    if passed is None:
        best = min((clopper_pearson_upper(int(errors[m]), m, delta) for m, _ in candidates), default=1.0)
        raise ValueError(
            f"certified_acceptance: {n} rows cannot certify an error of {r:g} at probability {1 - delta:g}: "
            f"the best bound is {best:.3g}; {accepted_needed(0, r, delta)} accepted and none wrong would do"
        )
    accepted, cut = passed
    bound = clopper_pearson_upper(int(errors[accepted]), accepted, delta)
    return Acceptance(cut, n, accepted, int(errors[accepted]), r, delta, bound, accepted / n)


def _candidates(ranked: F8, coverages: Sequence[float]) -> list[tuple[int, float]]:
    """(accepted, cut) from strict to loose, each cut once; `accepted` rows lie strictly below the cut."""
    n = len(ranked)
    found: dict[float, int] = {}
    for coverage in sorted(coverages):
        rank = math.floor(coverage * n + 1e-9)
        cut = float(ranked[rank]) if rank < n else float(np.nextafter(ranked[-1], np.inf))
        found[cut] = int(np.searchsorted(ranked, cut, "left"))
    return [(accepted, cut) for cut, accepted in found.items() if accepted > 0]


def _check(suspicion: F8, wrong: NDArray[np.bool_], r: float, delta: float) -> None:
    if suspicion.ndim != 1 or wrong.shape != suspicion.shape or wrong.dtype != np.bool_ or not len(wrong):
        raise ValueError(
            f"certified_acceptance: suspicion is {suspicion.dtype}{list(suspicion.shape)}, wrong is "
            f"{wrong.dtype}{list(wrong.shape)}; expected float64[n] and bool[n], n >= 1"
        )
    if not np.isfinite(suspicion).all():
        raise ValueError("certified_acceptance: the suspicion holds NaN or infinity; mend the check")
    if not (0 < r < 1 and 0 < delta < 1):
        raise ValueError(
            f"certified_acceptance: r is {r}, delta {delta}; both must lie strictly between 0 and 1"
        )
