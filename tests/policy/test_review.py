"""The shares of the review queue that a policy gives, and gives without being asked."""

from __future__ import annotations

from typing import Any

import pytest

from fallbacks.review.quotas import Share
from gateway.policy.review import ReviewPolicy

GIB = 2**30


@pytest.mark.parametrize(
    ("fields", "caller", "anonymous"),
    [
        ({"capacity": 10_000}, Share(2500, GIB // 4), Share(5000, GIB // 2)),
        ({"capacity": 10}, Share(3, -(-GIB * 3 // 10)), Share(5, GIB // 2)),
        ({"capacity": 2}, Share(1, GIB // 2), Share(1, GIB // 2)),
        ({"capacity": 1}, Share(1, GIB), Share(1, GIB)),
        (
            {"capacity": 100, "per_caller": 10, "anonymous": 20},
            Share(10, -(-GIB // 10)),
            Share(20, -(-GIB // 5)),
        ),
        ({"capacity": 100, "per_caller": 100, "max_bytes": 2**21}, Share(100, 2**21), Share(50, 2**20)),
        ({"capacity": 100, "per_caller": 10_000}, Share(100, GIB), Share(50, GIB // 2)),
    ],
)
def test_a_caller_has_a_part_of_the_cases_and_the_same_part_of_the_bytes(
    fields: dict[str, Any], caller: Share, anonymous: Share
) -> None:
    policy = ReviewPolicy(store="sqlite:///r.db", expire_after_s=60, **fields)
    assert policy.quotas.size_bytes == policy.max_bytes
    assert (policy.quotas.principal, policy.quotas.pool) == (caller, anonymous)
