"""The gateway beside a peer, in numbers that bear a machine which is slower in one minute than in another.

Only rounds that followed each other at once are put beside each other: first the ratio of each such pair,
then their median. The ratio of two medians would mix minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True)
class MedianWithRange:
    """The median over the rounds, with the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """NaN where nothing, or something that is no number, was measured."""
        if not values or any(math.isnan(one) for one in values):
            return cls(math.nan, math.nan, math.nan)
        return cls(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> MedianWithRange:
    """Ours over theirs, round by round."""
    return MedianWithRange.of([a / b if b else math.nan for a, b in zip(ours, theirs, strict=True)])


def differences(ours: Sequence[float], theirs: Sequence[float]) -> MedianWithRange:
    """Ours less theirs, round by round."""
    return MedianWithRange.of([a - b for a, b in zip(ours, theirs, strict=True)])
