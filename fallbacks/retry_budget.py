"""How many more calls than its callers' a model may get: retries and hedges share one budget.

Without a bound, retries multiply the load of a server that fails because of its load. So each call of a
caller pays in a fifth of a repeat, and each repeat, whatever it is for, takes a whole one: over any stretch
of calls at most 20 % of them, and the `MOST_SAVED` that earlier calls have paid in. One is there first.
"""

from __future__ import annotations

from typing import Final

CALLS_PER_REPEAT: Final = 5
MOST_SAVED: Final = 10
"""Repeats that may be saved up: those of 50 calls."""


class RetryBudget:
    """The repeats that one model may still get. For one event loop. Counts in whole calls, so it is exact.

    taken: repeats so far, retries and hedges together.
    """

    def __init__(self) -> None:
        self._paid_calls = CALLS_PER_REPEAT
        self.taken = 0

    def pay_in(self) -> None:
        """Counts one call of a caller."""
        self._paid_calls = min(self._paid_calls + 1, MOST_SAVED * CALLS_PER_REPEAT)

    def take(self) -> bool:
        """Whether one repeat is left; it is then taken."""
        if self._paid_calls < CALLS_PER_REPEAT:
            return False
        self._paid_calls -= CALLS_PER_REPEAT
        self.taken += 1
        return True
