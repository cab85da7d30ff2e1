"""Latencies in logarithmic bins, as the generator counts them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bin. Bin i: latencies up to 2^(i / bins_a_doubling) microseconds; most_s: the longest one."""

    bins: Mapping[int, int]
    bins_a_doubling: int
    most_s: float

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        """All of at least one histogram, of the same bins."""
        parts = list(parts)
        bins = Counter[int]()
        for one in parts:
            bins.update(one.bins)
        return cls(bins, parts[0].bins_a_doubling, max(one.most_s for one in parts))

    @property
    def count(self) -> int:
        return sum(self.bins.values())

    def percentile_s(self, share: float) -> float:
        """A bound of the latency in seconds that this share did not exceed; NaN of nothing.

        At most 2 % above the latency itself with 32 bins a doubling.
        """
        wanted, seen = share * self.count, 0
        for number, count in sorted(self.bins.items()):
            seen += count
            if seen >= wanted:
                return float(min(2 ** (number / self.bins_a_doubling) * 1e-6, self.most_s))
        return math.nan
