"""Which share of the rows goes to people, and which to each rung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.calibration.evidence import Evidence
from gateway.calibration.slices import exact_interval
from gateway.core.rows import Mask


@dataclass(frozen=True, slots=True)
class LoadLine:
    """One way to end. share: of the judged rows; low, high: its exact 95 % interval."""

    what: str
    share: float
    low: float
    high: float


def load_lines(evidence: Evidence, *, review: bool) -> list[LoadLine]:
    """First the rows that no model answers, then those that a guard refuses, then those of each rung.

    Args:    review: whether there is a review queue; without one the first are refused.
    """
    unanswered = evidence.by < 0
    refused = unanswered & _refused(evidence)
    ends = [("to people" if review else "refused, without a review queue", unanswered & ~refused)]
    if refused.any():
        ends.append(("refused by a guard", refused))
    ends += [
        (f"answered by {rung.name}" + (" (a fallback)" if i else ""), evidence.by == i)
        for i, rung in enumerate(evidence.rungs)
    ]
    return [_line(what, mask) for what, mask in ends]


def _refused(evidence: Evidence) -> Mask:
    """bool[n]: rows that an enforced guard refuses."""
    refused = np.zeros(len(evidence.rows), bool)
    for guard in evidence.guards:
        if guard.enforced and guard.verdict == "refuse":
            refused |= guard.scores >= guard.cut
    return refused


def _line(what: str, mask: Mask) -> LoadLine:
    return LoadLine(what, float(mask.mean()), *exact_interval(int(mask.sum()), len(mask)))
