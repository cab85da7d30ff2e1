"""A limit of how often one caller looks up decisions and reviews, at each replica.

A look-up reads the review store, or asks every other replica, and costs its caller next to nothing. The limit
is a token bucket with one number of state: the time when it will be full again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.core.decision import Reason, Refused

LOOKUPS_PER_S: Final = 50.0
BURST: Final = 100
"""Look-ups at once after a pause, such as the polls of a client for the rows of one batch."""


class LookupRate:
    """Counts look-ups by account, for one event loop. Accounts whose bucket is full use no memory."""

    def __init__(self, per_s: float = LOOKUPS_PER_S, burst: int = BURST) -> None:
        self._period_s = 1.0 / per_s
        self._most_s = burst / per_s
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def charge(self, account: str, now_s: float) -> Refused | None:
        """Counts one look-up at `now_s` (monotonic seconds); or returns why it is refused. Cost: 1 us."""
        full_at_s = max(self._full_at_s.get(account, now_s), now_s) + self._period_s
        wait_s = full_at_s - now_s - self._most_s
        if wait_s > 1e-9:
            return Refused(Reason.RATE_LIMITED, wait_s)
        self._full_at_s[account] = full_at_s
        self._forget_full(now_s)
        return None

    def _forget_full(self, now_s: float) -> None:
        """Looks at the two accounts that were looked at least recently; forgets those that are full."""
        for _ in range(min(2, len(self._full_at_s))):
            account, full_at_s = self._full_at_s.popitem(last=False)
            if full_at_s > now_s:
                self._full_at_s[account] = full_at_s
