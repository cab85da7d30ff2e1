"""How far apart refusals on one connection lie, so that they cannot take the event loop.

A client that answers each refusal with the next request would else have the loop to itself.
"""

from __future__ import annotations

import math
import random

MOST_FACTOR = 8
"""Paced replies on one connection lie at most so many times their `pace_s` apart, and half as much again."""


class Pace:
    """The paced replies of one connection: the first is due at once, each later one after twice the time."""

    __slots__ = ("_next_s", "_until_s")

    def __init__(self) -> None:
        self._next_s, self._until_s = 0.0, -math.inf

    def wait_s(self, pace_s: float, now_s: float) -> float:
        """Seconds until the next such reply is due, which is then counted. Begins anew after a long pause."""
        if now_s > self._until_s + MOST_FACTOR * pace_s:
            self._next_s = pace_s
        wait_s = max(0.0, self._until_s - now_s)
        spread = random.uniform(0.5, 1.5)  # noqa: S311 - so that many connections do not come at once
        self._until_s = now_s + wait_s + spread * self._next_s
        self._next_s = min(2 * self._next_s, MOST_FACTOR * pace_s)
        return wait_s
