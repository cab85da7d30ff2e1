"""What the tests of the review queue share: cases, and time that passes only when told."""

from __future__ import annotations

import json

from fallbacks.review.queue import Case, CaseState

OPEN, LEASED, DECIDED, EXPIRED = CaseState


class Clock:
    """Seconds of a wall clock that stands still until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def a_case(name: str, expires_s: float = 2000.0, payload: bytes = b"x", principal: str = "alice") -> Case:
    why, view = json.dumps({"reason": "odd"}), json.dumps({"cat": 0.5})
    return Case(name, principal, 1000.0, expires_s, payload, why, view)
