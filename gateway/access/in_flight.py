"""How many requests are under way, in all and for each caller: one bound, whatever protocol they came by.

Rates say how often somebody may ask; this says how much of the gateway one caller may hold at a time. What
waits for a person's answer counts too.
"""

from __future__ import annotations

from gateway.core.decision import Reason, Refused

RETRY_S = 1.0


class InFlight:
    """Counts requests under way, for one event loop. The limits may be changed at any time."""

    def __init__(self, most: int, most_per_caller: int) -> None:
        self.most, self.most_per_caller = most, most_per_caller
        self.total = 0
        self._by_caller: dict[str, int] = {}

    def enter(self, principal: str) -> Refused | None:
        """Takes a request in, which must `leave`; or says why not. Cost: 0.2 us."""
        if self.total >= self.most:
            return Refused(Reason.UNAVAILABLE, RETRY_S)
        count = self._by_caller.get(principal, 0)
        if count >= self.most_per_caller:
            return Refused(Reason.RATE_LIMITED, RETRY_S)
        self._by_caller[principal] = count + 1
        self.total += 1
        return None

    def leave(self, principal: str) -> None:
        """The end of a request that came in. Nothing is kept of a caller without any."""
        self.total -= 1
        count = self._by_caller[principal] - 1
        if count:
            self._by_caller[principal] = count
        else:
            del self._by_caller[principal]
