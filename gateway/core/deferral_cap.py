"""How many rows are deferred because no model answered them: so many at once, and then so many a second.

A deferral is written to the disk and costs more than an answer; and a person can decide a few a minute. So
where models fail or are overloaded, most of what they do not answer is refused, to be sent again: reviewers
get a sample, and the rows that guards and checks deferred, which are not counted here.
"""

from __future__ import annotations

import math

from gateway.core.deadline import now_s

BURST_ROWS, ROWS_PER_S = 500.0, 20.0


class DeferralCap:
    """A token bucket of rows, on the event loop's clock."""

    def __init__(self, burst_rows: float = BURST_ROWS, rows_per_s: float = ROWS_PER_S) -> None:
        self._burst_rows, self._rows_per_s = burst_rows, rows_per_s
        self._rows, self._at_s = burst_rows, -math.inf

    def take(self, rows: int) -> int:
        """How many of these rows may be deferred: they are counted."""
        now = now_s()
        self._rows = min(self._burst_rows, self._rows + self._rows_per_s * max(0.0, now - self._at_s))
        self._at_s = now
        taken = min(rows, int(self._rows))
        self._rows -= taken
        return taken
