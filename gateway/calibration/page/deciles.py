"""How rows fare by the number that the primary answers, in tenths of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.formatting import number
from gateway.calibration.page.numbers import Numbers, answered_numbers, numbers_of
from gateway.calibration.slices import FLAG_FACTOR, exact_interval
from gateway.core.rows import Mask

SLICES, LEAST_ROWS = 10, 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of rows and its exact 95 % interval."""

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, mask: Mask) -> Estimate:
        """The share of n rows, n >= 1."""
        return cls(float(mask.mean()), *exact_interval(int(mask.sum()), len(mask)))


@dataclass(frozen=True, slots=True)
class NumberSlice:
    """Judged rows to which the primary answers similar numbers.

    stopped: by the guards. Of the answered rows, None without any: outside: whose true value lies outside the
    interval, error: the mean absolute error, width: the median interval's. stopped_often: more than
    `FLAG_FACTOR` times as often as the budget; outside_often: more often than promised on average. Each only
    where the interval of the share says so.
    """

    name: str
    rows: int
    stopped: Estimate
    outside: Estimate | None
    error: float | None
    width: float | None
    stopped_often: bool
    outside_often: bool


def number_slices(evidence: Evidence, budget: float, answered_error: float | None) -> list[NumberSlice]:
    """The slices, ascending; fewer where rows are few or numbers are equal; none without numbers.

    Args:    budget, answered_error: of the policy.
    """
    primary, answered = numbers_of(evidence, 0), answered_numbers(evidence)
    if primary is None or answered is None:
        return []
    known = np.isfinite(primary.value)
    at = _tenths(primary, known)
    slices = []
    for k in np.unique(at[known]).tolist():
        rows = np.asarray(known & (at == k))
        given = answered.take(np.asarray(rows & (evidence.by >= 0)))
        stopped, outside = Estimate.of(evidence.stopped[rows]), _outside(given)
        slices.append(
            NumberSlice(
                _name(primary, rows),
                int(rows.sum()),
                stopped,
                outside,
                float(given.error.mean()) if len(given.error) else None,
                float(np.median(given.width)) if outside is not None else None,
                stopped.low > FLAG_FACTOR * budget,
                outside is not None and answered_error is not None and outside.low > answered_error,
            )
        )
    return slices


def _tenths(primary: Numbers, known: Mask) -> NDArray[np.intp]:
    values = primary.value[known]
    slices = max(1, min(SLICES, len(values) // LEAST_ROWS))
    edges = np.quantile(values, np.arange(1, slices) / slices) if len(values) else np.empty(0)
    return np.searchsorted(edges, primary.value, side="right")


def _name(primary: Numbers, rows: Mask) -> str:
    least, most = (number(float(part(primary.value[rows]))) for part in (np.min, np.max))
    return least if least == most else f"{least} to {most}"


def _outside(given: Numbers) -> Estimate | None:
    """Of the answers with an interval."""
    known = ~np.isnan(given.width)
    return Estimate.of(given.beyond[known] > 0) if known.all() and known.any() else None
