"""The numbers that a regressor answers to the judged rows, with their intervals and the true values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fallbacks.roles import LOWER, UPPER, VALUE
from gateway.calibration.evidence import Evidence
from gateway.core.rows import F8, Mask
from gateway.policy.kinds.interval import one_a_row


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """n rows, float64[n] each. value: NaN without an answer; lower, upper: NaN without an interval."""

    value: F8
    lower: F8
    upper: F8
    truth: F8

    @property
    def error(self) -> F8:
        """float64[n]: how far the value lies from the truth; NaN without an answer."""
        return np.asarray(np.abs(self.value - self.truth))

    @property
    def width(self) -> F8:
        """float64[n]: of the interval; NaN without one."""
        return np.asarray(self.upper - self.lower)

    @property
    def beyond(self) -> F8:
        """float64[n]: how far the truth lies outside the interval, 0 inside; NaN without one."""
        outside = np.maximum(self.lower - self.truth, self.truth - self.upper)
        return np.asarray(np.maximum(outside, 0.0))

    def take(self, rows: Mask) -> Numbers:
        """The rows of the mask."""
        return Numbers(self.value[rows], self.lower[rows], self.upper[rows], self.truth[rows])


def numbers_of(evidence: Evidence, depth: int) -> Numbers | None:
    """What one rung says to every row; None where it answers no single number or the task is another."""
    truth = evidence.rows.truth
    answer = evidence.rows.answers[evidence.rungs[depth].name]
    if truth is None or VALUE not in answer or answer[VALUE].size != len(truth):
        return None
    unknown = np.full(len(truth), np.nan)
    lower, upper = (one_a_row(answer[name]) if name in answer else unknown for name in (LOWER, UPPER))
    return Numbers(one_a_row(answer[VALUE]), lower, upper, truth)


def answered_numbers(evidence: Evidence) -> Numbers | None:
    """What the rung says that answers a row; None where the task is no regression."""
    truth = evidence.rows.truth
    if truth is None:
        return None
    parts = np.full((3, len(truth)), np.nan)
    for depth in range(len(evidence.rungs)):
        found = numbers_of(evidence, depth)
        if found is not None:
            own = np.stack([found.value, found.lower, found.upper])
            parts = np.where(evidence.by == depth, own, parts)
    value, lower, upper = parts
    return Numbers(value, lower, upper, truth)
