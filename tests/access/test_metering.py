"""What bodies cost a caller: which comes first, which is refused, and that no debt is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.access import metering
from gateway.access.callers import ANONYMOUS, Callers, is_anonymous
from gateway.access.metering import (
    ANONYMOUS_SHARES,
    HALF_LIFE_S,
    INVALID_BURST_S,
    INVALID_FACTOR,
    INVALID_LEAK,
    ParseMeter,
)
from gateway.core.decision import Reason


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> ParseMeter:
    return ParseMeter(clock)


def anonymous(n: int) -> str:
    return f"{ANONYMOUS}@127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def test_valid_bodies_are_never_refused_however_much_they_cost(meter: ParseMeter) -> None:
    for _ in range(1000):
        meter.charge_valid("ada", 10.0)
    assert meter.refusal("ada") is None


def test_invalid_bodies_beyond_the_budget_refuse_until_the_debt_has_leaked_away(
    meter: ParseMeter, clock: Clock
) -> None:
    within_s = INVALID_BURST_S / INVALID_FACTOR
    meter.charge_invalid("ada", within_s)
    assert meter.refusal("ada") is None
    meter.charge_invalid("ada", 0.1)
    refused = meter.refusal("ada")
    assert refused is not None
    assert refused.reason is Reason.RATE_LIMITED
    assert refused.retry_after_s == pytest.approx(0.1 * INVALID_FACTOR / INVALID_LEAK)
    assert meter.refusal("bob") is None, "another caller is not"
    clock.now_s += 0.1 * INVALID_FACTOR / INVALID_LEAK + 0.001
    assert meter.refusal("ada") is None


def test_small_invalid_bodies_are_charged_by_their_bytes(meter: ParseMeter) -> None:
    sent = {0: 0, 32 * 1024: 0}
    for size in sent:
        while meter.refusal(f"of {size}") is None:
            meter.charge_invalid_bytes(f"of {size}", size)
            sent[size] += 1
    assert 1000 < sent[0] < 10_000
    assert sent[32 * 1024] < sent[0] / 10


def test_the_caller_that_has_used_least_comes_first_and_invalid_bodies_count_more(meter: ParseMeter) -> None:
    meter.charge_valid("heavy", 1.0)
    meter.charge_invalid("broken", 1.0)
    meter.charge_valid("light", 0.1)
    order = sorted(["broken", "heavy", "new", "light"], key=meter.rank)
    assert order == ["new", "light", "heavy", "broken"]


def test_what_was_used_long_ago_counts_no_more(meter: ParseMeter, clock: Clock) -> None:
    meter.charge_valid("ada", 8.0)
    clock.now_s += 3 * HALF_LIFE_S
    assert list(meter.rank("ada")) == pytest.approx([1.0, 1.0])
    meter.charge_valid("bob", 2.0)
    assert meter.rank("ada") < meter.rank("bob")


def test_many_addresses_come_after_a_caller_with_a_key_and_among_them_the_lightest_first(
    meter: ParseMeter,
) -> None:
    for n in range(100):
        meter.charge_valid(anonymous(n), 0.1)
    meter.charge_valid("ada", 5.0)
    meter.charge_valid(anonymous(1), 1.0)
    order = sorted([anonymous(1), anonymous(500), anonymous(2), "ada"], key=meter.rank)
    assert order == ["ada", anonymous(500), anonymous(2), anonymous(1)]


def test_many_addresses_have_together_the_budget_of_a_few_keys(meter: ParseMeter) -> None:
    addresses = 0
    while meter.refusal(anonymous(addresses)) is None:
        meter.charge_invalid(anonymous(addresses), 0.9 * INVALID_BURST_S / INVALID_FACTOR)
        addresses += 1
    assert ANONYMOUS_SHARES <= addresses <= ANONYMOUS_SHARES + 1
    assert meter.refusal("ada") is None


def test_an_address_beyond_its_own_budget_leaves_the_others_theirs(meter: ParseMeter) -> None:
    meter.charge_invalid(anonymous(1), INVALID_BURST_S)
    assert meter.refusal(anonymous(1)) is not None
    assert meter.refusal(anonymous(2)) is None


def test_the_table_is_bounded_and_neither_debts_nor_the_groups_are_forgotten(
    meter: ParseMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "ACCOUNTS", 64)
    meter.charge_invalid("debtor", INVALID_BURST_S)
    for n in range(10_000):
        meter.charge_invalid(anonymous(n), 0.001)
    assert len(meter) <= 64 + 1
    assert meter.refusal("debtor") is not None
    refused = meter.refusal(anonymous(20_000))
    assert refused is not None, "10,000 forgotten addresses owe together what they owed"
    assert refused.retry_after_s is not None
    owed_s = 10_000 * 0.001 * INVALID_FACTOR - INVALID_BURST_S * ANONYMOUS_SHARES
    assert refused.retry_after_s == pytest.approx(owed_s / (INVALID_LEAK * ANONYMOUS_SHARES))


def test_a_caller_without_a_key_is_known_by_its_name(tmp_path: Path) -> None:
    caller = Callers(tmp_path, anonymous_loopback=True).identify(None, "127.0.0.1")
    assert caller is not None
    assert is_anonymous(caller.principal)
