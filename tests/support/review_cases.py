"""What the tests of review stores share: cases, and a clock that moves only when it is set."""

from __future__ import annotations

import json

from fallbacks.review.cases import Case, CaseState
from fallbacks.review.quotas import PutResult

OPEN, LEASED, DECIDED, EXPIRED = CaseState
STORED, OVER_QUOTA, FULL, REJECTED = PutResult


class Clock:
    """Seconds of a wall clock that stands still until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def a_case(
    name: str,
    expires_s: float = 2000.0,
    payload: bytes = b"x",
    principal: str = "alice",
    created_s: float = 1000.0,
    pool: str = "",
    group: str = "",
) -> Case:
    why, view = json.dumps({"reason": "odd"}), json.dumps({"cat": 0.5})
    return Case(name, principal, created_s, expires_s, payload, why, view, pool, group)
