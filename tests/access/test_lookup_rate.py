"""The limit of look-ups: a burst, then a rate, for each account alone."""

from __future__ import annotations

import pytest

from gateway.access.lookup_rate import LookupRate
from gateway.core.decision import Reason, Refused


def test_a_burst_passes_at_once_and_then_as_many_as_the_rate_allows() -> None:
    rate = LookupRate(per_s=10.0, burst=5)
    assert [rate.charge("ada", 100.0) for _ in range(5)] == [None] * 5
    refused = rate.charge("ada", 100.0)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.RATE_LIMITED
    assert refused.retry_after_s == pytest.approx(0.1)
    assert rate.charge("ada", 100.1) is None
    assert rate.charge("ada", 100.1) is not None
    assert sum(rate.charge("ada", 101.0) is None for _ in range(20)) == 5, "no more than a burst is saved"


def test_a_refused_look_up_charges_nothing() -> None:
    rate = LookupRate(per_s=10.0, burst=1)
    rate.charge("ada", 0.0)
    assert all(rate.charge("ada", 0.05) is not None for _ in range(1000))
    assert rate.charge("ada", 0.1) is None


def test_accounts_do_not_share_a_limit() -> None:
    rate = LookupRate(per_s=10.0, burst=1)
    assert [rate.charge(name, 0.0) is None for name in ("ada", "bob", "ada", "bob")] == [True, True] + [
        False
    ] * 2


def test_accounts_that_may_look_up_a_burst_again_use_no_memory() -> None:
    rate = LookupRate(per_s=10.0, burst=5)
    for i in range(1000):
        rate.charge(f"{i}", i * 0.2)
    assert len(rate._full_at_s) < 5
