"""Rate: the generic cell rate algorithm over rows, with one float of state per principal.

The float is the theoretical arrival time (tat), in seconds: when the principal's bucket will be empty. A row
that conforms moves it on by one period; a row that does not conform leaves it unchanged, so that retrying
does not lengthen the wait. Formula, guarantee and limits: docs/guards.md, rate.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from guards.rows import F8, GuardBatch

CLOCK_SLACK = 1e-3
BELOW_ONE = math.nextafter(1.0, 0.0)


def conform_row(tat: float, now: float, period_s: float, tolerance_s: float) -> tuple[float, float]:
    """Process one row: the new theoretical arrival time, and the score.

    The score is 1 + wait_s / tolerance_s, where wait_s is the time until this row would conform (negative:
    by how much it conforms). A row with wait_s <= 0 conforms, is charged, and scores below 1.0 (the last row
    of a burst, whose score is exactly 1.0, gets the next smaller float). A score of 1.0 or more charges
    nothing, and (score - 1) * tolerance_s is the wait.

    Args:    tat, now: seconds on one monotonic clock. period_s > 0: one over the rate. tolerance_s >=
             period_s: burst times period; exactly that many rows pass at one instant.
    Source:  ITU-T I.371, annex A. Deviation: a slack of a thousandth of a period, against rounding of the
             clock.
    """
    busy_until = max(tat, now) + period_s
    wait_s = busy_until - now - tolerance_s
    score = 1.0 + wait_s / tolerance_s
    if wait_s <= CLOCK_SLACK * period_s:
        return busy_until, min(score, BELOW_ONE)
    return tat, score


@dataclass(slots=True)
class RateGuard:
    """A rate limit per principal. The policy's cut is `refuse: 1.0`.

    per_s > 0, burst >= 1: default rows per second, and rows at one instant. rates: a principal's own rows
    per second, or None for the default; its burst scales with it (at least one row), and 0 refuses every
    row. clock: monotonic seconds. arrivals: the theoretical arrival time of each active principal.
    """

    per_s: float
    burst: float
    clock: Callable[[], float]
    rates: Callable[[str], float | None] = lambda principal: None
    arrival_times: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if not (0 < self.per_s < math.inf and 1 <= self.burst < math.inf):
            raise ValueError(f"rate: per_s is {self.per_s}, burst {self.burst}; expected > 0 and >= 1")

    async def score(self, batch: GuardBatch) -> F8:
        """Charge each row in order, all at the same time.

        Returns: float64[n]; 1.0 or more is over the limit, and (score - 1) * burst / per_s is then the wait
                 in seconds, infinite for a rate of 0.
        Raises:  ValueError for a negative or NaN rate.
        Cost:    O(1), about 2 us, per row. Memory: one float per principal whose bucket is not empty, and at
                 most as many more.
        """
        return self.charge(batch.principals, self.clock())

    def charge(self, principals: Sequence[str], now: float) -> F8:
        """As `score`, at the time `now`, in seconds of the clock."""
        return np.array([self._charge(principal, now) for principal in principals], np.float64)

    def _charge(self, principal: str, now: float) -> float:
        base_s = self.burst / self.per_s
        own = self.rates(principal)
        rate = self.per_s if own is None else own
        if not rate >= 0:
            raise ValueError(f"rate: the rate of {principal!r} is {rate}; expected rows a second, 0 or more")
        if rate == 0:
            return math.inf
        period_s = 1.0 / rate
        tolerance_s = max(base_s, period_s)
        before = self.arrival_times.get(principal, now)
        after, score = conform_row(before, now, period_s, tolerance_s)
        if score < 1.0:
            self.arrival_times[principal] = after
        self._drop_expired(now)
        return 1.0 + (score - 1.0) * (tolerance_s / base_s)

    def _drop_expired(self, now: float) -> None:
        """Inspect the two entries inspected least recently; drop those that have expired."""
        for _ in range(min(2, len(self.arrival_times))):
            principal, tat = self.arrival_times.popitem(last=False)
            if tat > now:
                self.arrival_times[principal] = tat
