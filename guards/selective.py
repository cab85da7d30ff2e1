"""Certified confidence cuts: Learn then Test, with candidates and their order fixed on other rows.

A cut on the suspicion is good if at most a share r of the rows below it is wrong. Candidate cuts, and the
order in which they are tested, come from *pilot* rows; the *test* rows then see a fixed list of hypotheses.
For a fixed cut the number of wrong rows among the accepted test rows is binomial, so `Counts.certifies` is
an exact test of level delta. A fixed sequence of such tests that stops at its first failure passes a bad cut
with probability at most delta, because the first bad cut in the order has to pass. So all cuts that pass hold
together, and any of them may be chosen afterwards, by any rule.

The order decides the power alone. A sequence that begins at the strictest cut ends by chance: with few
accepted rows three errors are too many. This one begins at the strictest cut that the pilot rows expect to
pass by a wide margin, or at the surest one if none does, and then loosens. docs/guards.md, section 8,
compares it with a sequence from the strict end, several starts, and a Bonferroni grid.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from guards.atoms import SUSPICIONS, cut_above
from guards.binomial import cdf, log_masses
from guards.detector import I8
from guards.order_statistic import samples_needed
from guards.rows import F8

Mask = NDArray[np.bool_]
COVERAGES = tuple(i / 400 for i in range(8, 401))
WIDE_MARGIN = 3.0
"""Standard deviations by which the first cut of a sequence is expected to pass, where any does."""
NEVER = sys.float_info.max
"""The suspicion of a row that no cut may accept."""
LEAST_MARGIN = -3.0
"""Standard deviations: cuts that are expected to fail by more are not combined with other rungs' cuts."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labelled rows. suspicion: float64[n], finite, larger = less sure; wrong: bool[n]."""

    suspicion: F8
    wrong: Mask

    def __post_init__(self) -> None:
        if self.suspicion.ndim != 1 or not np.isfinite(self.suspicion).all():
            raise ValueError("selective: the suspicion is not one finite number a row; mend the check")
        if self.wrong.shape != self.suspicion.shape or self.wrong.dtype != np.bool_:
            raise ValueError(
                f"selective: wrong is {self.wrong.dtype}{list(self.wrong.shape)}, not bool, one a row"
            )

    def __len__(self) -> int:
        return len(self.suspicion)

    def below(self, cuts: Sequence[float]) -> tuple[I8, I8]:
        """The accepted rows and the wrong ones among them, int64[cuts] each. Cost: O(n log n)."""
        order = np.argsort(self.suspicion, kind="stable")
        accepted = np.searchsorted(self.suspicion[order], cuts, "left")
        errors = np.concatenate([[0], np.cumsum(self.wrong[order])])[accepted]
        return accepted.astype(np.int64), errors.astype(np.int64)


@dataclass(frozen=True, slots=True)
class CertifiedCuts:
    """Cuts, ascending. certified: each errs at most at the promised rate; empty if none could be certified.

    tried: every cut from the first of the sequence to those that are expected to fail; surest: the test rows
    below the first.
    """

    certified: tuple[float, ...]
    tried: tuple[float, ...]
    surest: Counts


@dataclass(frozen=True, slots=True)
class Counts:
    """Labelled rows below a cut: how many, and how many of them are wrong."""

    accepted: int
    errors: int

    def __post_init__(self) -> None:
        if not 0 <= self.errors <= self.accepted:
            raise ValueError(f"selective: {self.errors} errors among {self.accepted} accepted rows")

    def certifies(self, r: float, delta: float) -> bool:
        """Whether an error above r would give so few wrong rows with probability at most delta.

        No accepted row certifies nothing.
        """
        return self.errors <= most_errors(self.accepted, r, delta)

    def bound(self, delta: float) -> float:
        """The Clopper-Pearson bound of the error; 1 for no row."""
        return clopper_pearson_upper(self.errors, self.accepted, delta)


@lru_cache(maxsize=1 << 16)
def most_errors(accepted: int, r: float, delta: float) -> int:
    """The largest e with P(Bin(accepted, r) <= e) <= delta; -1 without one. Cost: O(accepted), cached."""
    if accepted < 1:
        return -1
    return int(np.searchsorted(np.cumsum(np.exp(log_masses(accepted, r))), delta, "right")) - 1


def margins(accepted: I8, errors: I8, r: float, delta: float, scale: float) -> F8:
    """By how many standard deviations `scale` times as many rows are expected to certify r.

    A normal approximation, with the deviation that an error of r has: a few pilot rows without an error are
    no certainty. For planning alone: nothing is certified by it.

    Args:    accepted, errors: int64, any shape, of pilot rows; scale: test rows for each pilot row.
    Returns: float64 of that shape; negative: expected to fail; -inf for rows too few even without an error.
    """
    m, rate = accepted * scale, (errors + 0.5) / (accepted + 1)
    found = np.sqrt(m) * (r - rate) / math.sqrt(r * (1 - r)) - NormalDist().inv_cdf(1 - delta)
    return np.asarray(np.where(m >= math.log(delta) / math.log1p(-r), found, -np.inf))


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


def clopper_pearson_interval(events: int, n: int, delta: float) -> tuple[float, float]:
    """The exact interval of a share at level 1 - delta, half of delta on each side; (0, 1) for n = 0.

    Cost:    twice `clopper_pearson_upper`.
    """
    return 1 - clopper_pearson_upper(n - events, n, delta / 2), clopper_pearson_upper(events, n, delta / 2)


def accepted_needed(errors: int, r: float, delta: float) -> int:
    """The least number of accepted rows that certifies r when `errors` of them are wrong.

    Cost:    O(n) for each of a few steps; O(1) without an error.
    """
    if errors == 0:
        return samples_needed(r, delta)
    low, high = errors, errors + 1
    while not Counts(high, errors).certifies(r, delta):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if Counts(middle, errors).certifies(r, delta) else (middle, high)
    return high


def certified_cuts(pilot: Labelled, test: Labelled, r: float, delta: float) -> CertifiedCuts:
    """The cuts below which at most a share r of the rows is wrong, all with probability 1 - delta together.

    Args:    pilot: rows to plan on; test: rows of the same population that nothing was planned or fitted on.
             r, delta: in (0, 1).
    Raises:  ValueError for a rate outside (0, 1).
    Cost:    O(n log n), and O(n) for each of the 400 candidates.
    """
    if not (0 < r < 1 and 0 < delta < 1):
        raise ValueError(f"selective: r is {r}, delta {delta}; both must lie strictly between 0 and 1")
    cuts = candidate_cuts(pilot.suspicion)
    if not cuts:
        return CertifiedCuts((), (), Counts(0, 0))
    expected = margins(*pilot.below(cuts), r, delta, len(test) / len(pilot))
    start = first_candidate(expected)
    accepted, errors = test.below(cuts[start:])
    certified = cuts[start : start + passing(accepted, errors, r, delta)]
    last = max([start, *np.flatnonzero(expected >= LEAST_MARGIN).tolist()])
    return CertifiedCuts(certified, cuts[start : last + 1], Counts(int(accepted[0]), int(errors[0])))


def candidate_cuts(suspicion: F8) -> tuple[float, ...]:
    """Cuts between the atoms of a suspicion, ascending, each once, at every 400th of the rows or so.

    Rows whose suspicion is NEVER lie above every cut.
    """
    ranked = np.sort(suspicion[suspicion < NEVER])
    n = len(ranked)
    ranks = {min(n, max(1, math.floor(share * n + 1e-9))) - 1 for share in COVERAGES} if n else set()
    return tuple(sorted({cut_above(ranked, rank, SUSPICIONS) for rank in ranks}))


def first_candidate(expected: F8) -> int:
    """Where a sequence from strict to loose begins: the first wide margin, or the widest. See the module."""
    wide = np.flatnonzero(expected >= WIDE_MARGIN)
    return int(wide[0]) if wide.size else int(np.argmax(expected))


def passing(accepted: I8, errors: I8, r: float, delta: float) -> int:
    """How many tests a fixed sequence passes before the first that fails.

    With probability at least 1 - delta every cut that passes has an error of at most r.

    Args:    accepted, errors: int64[tests], in the order of the sequence.
    Source:  Angelopoulos et al., Learn then Test, arXiv 2110.01052, section 2.3; Bauer, Statistics in
             Medicine 10 (1991). Order from other rows: Laufer-Goldshtein et al., Pareto Testing, ICLR 2023.
    """
    values, at = np.unique(accepted, return_inverse=True)
    most = np.array([most_errors(value, r, delta) for value in values.tolist()], np.int64)
    failed = np.flatnonzero(errors > most[at])
    return int(failed[0]) if failed.size else len(accepted)
