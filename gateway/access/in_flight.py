"""How many requests are in flight, in all and for each caller: one bound, whatever protocol they use.

Rates bound how often a caller may send; this bounds how much of the gateway one caller may hold at a time.
Requests that wait for a reviewer count too.
"""

from __future__ import annotations

from gateway.core.decision import Reason, Refused

RETRY_S = 1.0


class InFlight:
    """Counts requests in flight, for one event loop. The limits may be changed at any time."""

    def __init__(self, limit: int, limit_per_caller: int) -> None:
        self.limit, self.limit_per_caller = limit, limit_per_caller
        self.total = 0
        self._by_caller: dict[str, int] = {}

    def acquire(self, principal: str) -> Refused | None:
        """Counts a request, which must `release`; or returns why it is refused. Cost: 0.2 us."""
        if self.total >= self.limit:
            return Refused(Reason.UNAVAILABLE, RETRY_S)
        count = self._by_caller.get(principal, 0)
        if count >= self.limit_per_caller:
            return Refused(Reason.RATE_LIMITED, RETRY_S)
        self._by_caller[principal] = count + 1
        self.total += 1
        return None

    def release(self, principal: str) -> None:
        """Ends a request that was counted. Nothing is kept of a caller without any."""
        self.total -= 1
        count = self._by_caller[principal] - 1
        if count:
            self._by_caller[principal] = count
        else:
            del self._by_caller[principal]
