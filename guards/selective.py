"""How unsure an answer may be and still be served, with a promise on how often what is served is wrong.

Learn then test, in a fixed sequence: order candidate cuts from strict to loose, before a label is looked at.
For each in turn, bound the error of what it accepts from above (Clopper-Pearson, 1 - delta). Stop at the
first bound over r; the cut before it is certified. Since the sequence stops at its first failure, only the
first bad cut could be accepted wrongly, and no correction for the number of cuts is due.

The candidates are ranks of the suspicion. Given the cut at rank g, the rows below it are independent draws
from the population below it, so the number of wrong ones is binomial; this carries over to the first bad cut
if the selective error crosses r once as the cut loosens (as it does where suspicion rises with error).
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
SPARE_ERRORS = 2


@dataclass(frozen=True, slots=True)
class Acceptance:
    """With probability 1 - delta, rows with suspicion < cut are wrong at a rate of at most r.

    accepted of the n labelled rows lie below the cut, errors of these are wrong; bound is theirs, coverage
    their share.
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
    """The largest rate that errors out of n do not rule out at level delta: one-sided, exact, 1 for n = 0.

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
    """The least number of accepted rows, so many of them wrong, that certifies r."""
    low, high = errors, errors + 1
    while not _certifies(errors, high, r, delta):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _certifies(errors, middle, r, delta) else (middle, high)
    return high


def _certifies(errors: int, n: int, r: float, delta: float) -> bool:
    """Whether the Clopper-Pearson bound is at most r, without computing it."""
    return cdf(errors, n, r) <= delta


def certified_acceptance(
    suspicion: F8, wrong: NDArray[np.bool_], r: float, delta: float, coverages: Sequence[float] = COVERAGES
) -> Acceptance:
    """The loosest cut on suspicion that the fixed sequence certifies.

    The sequence begins where two wrong rows would still certify r (or none, if no coverage has room for two):
    earlier steps fail by bad luck, and a failure ends it. That choice sees no label.

    Args:    suspicion: float64[n], wrong: bool[n], of labelled rows drawn like those to come and unseen by
             fitting. coverages: ascending shares in (0, 1]; ties move a candidate to the strict side.
    Raises:  ValueError if nothing can be certified: the best bound reached, and how many rows an error-free
             set needs.
    Source:  Angelopoulos et al., Learn then Test, 2021, section 2.3; Bauer 1991 for the fixed sequence.
    """
    _check(suspicion, wrong, r, delta)
    order = np.argsort(suspicion, kind="stable")
    ranked, errors = suspicion[order], np.concatenate([[0], np.cumsum(wrong[order])])
    n = len(ranked)
    candidates = _candidates(ranked, coverages)
    least = accepted_needed(SPARE_ERRORS, r, delta)
    if not any(accepted >= least for accepted, _ in candidates):
        least = accepted_needed(0, r, delta)
    passed = None
    for accepted, cut in (one for one in candidates if one[0] >= least):
        if not _certifies(int(errors[accepted]), accepted, r, delta):
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
    """(accepted, cut) from strict to loose, each cut once: `accepted` rows lie strictly below it."""
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
