"""Where each row ends, as columns: the rule of `core/pipeline.py` for thousands of rows and many cuts.

Calibration needs the ends for every candidate cut, which the pipeline itself would be too slow for. The ends
at the cuts that are chosen are then taken from the compiled pipeline (`served.py`), so this only plans.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.core.assessment import Verdicts
from gateway.core.decision import Verdict
from gateway.core.rows import F8, Mask
from guards.detector import I8

NO_RUNG = -1
RungIndex = NDArray[np.int64]
CLOSED, OPEN = -sys.float_info.max, math.inf
"""A cut that no row passes, finite as a certificate stores it; and one that every row passes."""


@dataclass(frozen=True, slots=True, eq=False)
class RungRows:
    """One rung's answers to n rows. suspicion: of its check, None without one; wrong: None if unknown."""

    suspicion: F8 | None
    wrong: Mask | None


@dataclass(frozen=True, slots=True, eq=False)
class LadderRows:
    """n rows before the ladder.

    verdicts: int8[n], joined over the enforced certified guards; without_primary: the same where the primary
    gives no answer; rungs: in the order of the policy.
    """

    verdicts: Verdicts
    without_primary: Verdicts
    rungs: tuple[RungRows, ...]

    def reached(self, depth: int) -> Mask:
        """bool[n]: the rows that a rung may answer while every rung before it is gone."""
        if depth == 0:
            return np.asarray(self.verdicts == Verdict.ALLOW)
        return np.asarray(self.without_primary <= Verdict.DEGRADE)

    def beside(self, other: LadderRows) -> LadderRows:
        """These rows and others of the same ladder."""

        def both(a: Any, b: Any) -> Any:
            return None if a is None or b is None else np.concatenate([a, b])

        rungs = tuple(
            RungRows(both(a.suspicion, b.suspicion), both(a.wrong, b.wrong))
            for a, b in zip(self.rungs, other.rungs, strict=True)
        )
        return LadderRows(
            both(self.verdicts, other.verdicts), both(self.without_primary, other.without_primary), rungs
        )

    def answered_by(self, cuts: Sequence[float]) -> RungIndex:
        """int64[n]: the rung that answers while every model works, `NO_RUNG` where none does."""
        by = np.full(len(self.verdicts), NO_RUNG, np.int64)
        for depth, (rung, cut) in enumerate(zip(self.rungs, cuts, strict=True)):
            may = self.verdicts <= (Verdict.DEGRADE if depth else Verdict.ALLOW)
            passes = may & (by == NO_RUNG)
            if rung.suspicion is not None:
                passes &= rung.suspicion < cut
            by[passes] = depth
        return by

    def counts(self, grids: Sequence[Sequence[float]]) -> tuple[I8, I8]:
        """What is answered while every model works, and wrongly, for every combination of cuts.

        Args:    grids: ascending cuts of each rung.
        Returns: int64[grid of rung 0, grid of rung 1, ...] each.
        Cost:    O(n) per rung and a few sums over the grid, instead of O(n) per combination.
        """
        allowed = self.verdicts <= Verdict.DEGRADE
        bins: list[RungIndex] = []
        answered = np.zeros([len(grid) for grid in grids], np.int64)
        errors = answered.copy()
        for depth, (rung, grid) in enumerate(zip(self.rungs, grids, strict=True)):
            first = np.zeros(len(allowed), np.int64)  # the first cut of the grid that the row passes
            if rung.suspicion is not None:
                first = np.searchsorted(grid, rung.suspicion, "right").astype(np.int64)
            if depth == 0:
                first[self.verdicts > Verdict.ALLOW] = len(grid)
            bins.append(first)
            answered += _passes_last(bins, grids, allowed)
            if rung.wrong is not None:
                errors += _passes_last(bins, grids, allowed & rung.wrong)
        return answered, errors

    def wrong(self, by: RungIndex) -> Mask:
        """bool[n]: the rows whose answer is wrong. Every rung that answers must know which of its are."""
        found = np.zeros(len(by), bool)
        for depth, rung in enumerate(self.rungs):
            if rung.wrong is not None:
                found |= (by == depth) & rung.wrong
        return found


def _passes_last(bins: Sequence[RungIndex], grids: Sequence[Sequence[float]], rows: Mask) -> I8:
    """How many of the rows pass the last rung's cut and none before, for every combination; to broadcast."""
    table = np.zeros([len(grid) + 1 for grid in grids[: len(bins)]], np.int64)
    np.add.at(table, tuple(one[rows] for one in bins), 1)
    for axis in range(len(bins) - 1):
        at_least = np.flip(np.cumsum(np.flip(table, axis), axis), axis)
        table = np.take(at_least, range(1, at_least.shape[axis]), axis)
    within = np.take(np.cumsum(table, -1), range(table.shape[-1] - 1), -1)
    return within.reshape(within.shape + (1,) * (len(grids) - len(bins)))
