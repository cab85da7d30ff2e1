"""Comparison of the gateway with a peer on a machine whose speed varies from one minute to the next.

Only rounds that directly followed each other are compared: first the ratio of each such pair, then the median
of the ratios. The ratio of two medians would compare different minutes.
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
