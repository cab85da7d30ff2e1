"""Budgets by price on a fake clock: two levels, refusals that cost and never lock out, bounded refunds."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.gcra import Buckets, Limit
from guards.priced import PricedBudget
from guards.rate import RateGuard
from tests.guards.test_rate import Clock

PRICE = 10.0


def budget(clock: Clock, price: float = PRICE, **other: object) -> PricedBudget:
    fields = {"limit": Limit(5.0, 40.0), **other}
    return PricedBudget(Buckets(), prices_of=lambda principal: price, clock=clock, **fields)  # type: ignore[arg-type]


def passes(one: PricedBudget, principal: str, rows: int) -> int:
    return sum(score < 1 for score in one.charge(principal, rows))


def wait_s(one: PricedBudget, score: float) -> float:
    return (score - 1) * one.limit.tolerance_s


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.floats(0, 3)), max_size=40))
def test_with_a_price_of_one_it_is_the_rate(steps: list[tuple[str, int, float]]) -> None:
    clock = Clock()
    rate, priced = RateGuard(2, 5, clock), budget(clock, 1.0, limit=Limit(2, 5))
    for who, rows, later in steps:
        clock.now += later
        np.testing.assert_allclose(priced.charge(who, rows), rate.charge(who, rows), atol=1e-6)


def test_what_costs_more_passes_less_often() -> None:
    clock, prices = Clock(), {"label": 4.0, "vector": 20.0, "free": 0.0}
    one = PricedBudget(Buckets(), Limit(5, 40), prices.__getitem__, clock)
    assert {who: passes(one, who, 50) for who in prices} == {"label": 10, "vector": 2, "free": 50}
    clock.now += 4
    assert {who: passes(one, who, 50) for who in prices} == {"label": 5, "vector": 1, "free": 50}


def test_a_row_dearer_than_a_full_bucket_passes_when_it_is_full() -> None:
    clock = Clock()
    one = budget(clock, 60.0)
    assert passes(one, "a", 2) == 1
    score = one.charge("a", 1)[0]
    assert wait_s(one, score) == pytest.approx(60 / 5)
    clock.now += wait_s(one, score)
    assert passes(one, "a", 1) == 1


def test_many_names_share_the_model_and_trusted_ones_do_not() -> None:
    clock = Clock()
    one = budget(clock, model_limit=Limit(10, 100), trusted=lambda name: name == "ours")
    assert [passes(one, f"sybil {i}", 4) for i in range(5)] == [4, 4, 2, 0, 0]
    assert passes(one, "ours", 4) == 4
    score = one.charge("sybil 9", 1)[0]
    assert wait_s(one, score) == pytest.approx(1.0), "the wait is the model's"
    clock.now += 1
    assert passes(one, "sybil 9", 2) == 1


def test_what_the_model_refuses_costs_its_caller_nothing() -> None:
    clock = Clock()
    one = budget(clock, model_limit=Limit(10, 50), most_penalty=100.0)
    assert [passes(one, "thief", 4), passes(one, "ada", 50)] == [4, 1]
    clock.now += 100
    assert passes(one, "ada", 50) == 4, "a full bucket"


def test_a_refused_row_costs_more_than_an_answered_one() -> None:
    clock = Clock()
    one = budget(clock, refusal_factor=3.0, most_penalty=1000.0)
    assert passes(one, "a", 4) == 4
    score = one.charge("a", 1)[0]
    assert wait_s(one, score) == pytest.approx((3 * PRICE + PRICE) / 5)


def test_penalties_end_at_their_bound_and_begin_anew_with_the_next_row_that_passes() -> None:
    clock = Clock()
    one = budget(clock, most_penalty=25.0)
    one.charge("a", 4)
    waits = [wait_s(one, one.charge("a", 1)[0]) for _ in range(50)]
    assert waits[0] == pytest.approx((20 + PRICE) / 5)
    assert waits[1:] == pytest.approx([(25 + PRICE) / 5] * 49)
    clock.now += waits[-1]
    assert passes(one, "a", 1) == 1
    assert wait_s(one, one.charge("a", 1)[0]) == pytest.approx((20 + PRICE) / 5)


@given(st.floats(1, 10), st.floats(0, 500), st.floats(0.1, 100), st.integers(1, 5))
def test_a_caller_that_waits_as_told_is_admitted_when_it_comes_back(
    factor: float, most: float, price: float, rows: int
) -> None:
    clock = Clock()
    one = budget(clock, price, refusal_factor=factor, most_penalty=most)
    for _ in range(20):
        scores = one.charge("a", rows)
        if scores[0] >= 1:
            clock.now += wait_s(one, scores[0])
            assert one.charge("a", rows)[0] < 1
            assert wait_s(one, scores[0]) <= (most + 1.002 * price) / 5 + 1e-6


@pytest.mark.parametrize("callers", [2, 7, 30])
def test_callers_that_share_a_name_and_wait_as_told_do_not_refuse_each_other_for_ever(callers: int) -> None:
    clock, most = Clock(), 30.0
    one = budget(clock, most_penalty=most)
    due = [(clock.now + i * 0.001, i) for i in range(callers)]
    admitted: list[float] = []
    while clock.now < 1000 + 600:
        clock.now, who = heapq.heappop(due)
        score = one.charge("a", 1)[0]
        if score < 1:
            admitted.append(clock.now)
        heapq.heappush(due, (clock.now + (wait_s(one, score) if score >= 1 else 0.001), who))
    assert max(np.diff(admitted)) <= (most + PRICE) / 5 + 0.01
    assert len(admitted) * PRICE >= 600 * 5 * PRICE / (PRICE + most) * 0.95


def test_one_who_hammers_is_admitted_within_the_bound() -> None:
    clock = Clock()
    one = budget(clock, most_penalty=200.0)
    admitted = []
    for i in range(30_000):
        clock.now = 1000 + i * 0.01
        if one.charge("a", 1)[0] < 1:
            admitted.append(clock.now)
    assert max(np.diff(admitted)) <= (200 + PRICE) / 5 + 0.02
    assert 300 * 5 / (PRICE + 200) - 1 <= len(admitted) - 4 <= 300 * 5 / (PRICE + 200) + 1


def test_exact_repeats_are_free_and_what_tells_more_is_charged_after() -> None:
    clock = Clock()
    one = budget(clock, model_limit=Limit(10, 1000))
    for _ in range(100):
        assert passes(one, "a", 4) == 4
        one.settle("a", charged=4 * PRICE, price=0.0)
    assert passes(one, "a", 1) == 1
    one.settle("a", charged=PRICE, price=55.0)
    assert wait_s(one, one.charge("a", 1)[0]) == pytest.approx((55 + 10 - 40) / 5)


def test_no_refund_gives_more_than_was_charged() -> None:
    clock = Clock()
    one = budget(clock)
    one.charge("a", 4)
    one.settle("a", charged=2 * PRICE, price=2 * PRICE)
    for _ in range(10):
        one.settle("a", charged=1e9, price=0.0)
    assert passes(one, "a", 50) == 2
    one.settle("b", charged=1e9, price=0.0)
    assert passes(one, "b", 50) == 4, "not more than a full bucket"


def test_what_is_no_number_is_an_error_and_charges_nothing() -> None:
    clock = Clock()
    for bad in (math.nan, -1.0, math.inf):
        with pytest.raises(ValueError, match="a row of 'a' costs"):
            budget(clock, bad).charge("a", 1)
        one = budget(clock)
        for charged, price in ((bad, 1.0), (1.0, bad)):
            with pytest.raises(ValueError, match="in the end"):
                one.settle("a", charged, price)
        assert passes(one, "a", 50) == 4
        with pytest.raises(ValueError, match="refusal_factor is"):
            budget(clock, refusal_factor=bad)
        with pytest.raises(ValueError, match="most_penalty"):
            budget(clock, most_penalty=bad)
    for per_s, burst in ((math.nan, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="limit: per_s is"):
            Limit(per_s, burst)


def test_limits_of_their_own_none_and_without_end() -> None:
    clock = Clock()
    own = {
        "double": Limit(10, 80),
        "none": Limit(0, 1),
        "free": Limit(math.inf, math.inf),
        "fast": Limit(math.inf, 10),
    }
    one = budget(clock, limits=own.get)
    assert {who: passes(one, who, 90) for who in ("usual", *own)} == {
        "usual": 4, "double": 8, "none": 0, "free": 90, "fast": 1,
    }  # fmt: skip
    assert one.charge("none", 2) == [math.inf, math.inf]
    one.settle("none", 1.0, 2.0)
    one.settle("free", 1.0, 2.0)
    assert all(math.isfinite(score) for score in one.charge("free", 3))


def test_a_clock_that_steps_back_gives_no_credit() -> None:
    clock = Clock(100.0)
    one = budget(clock)
    one.charge("a", 4)
    clock.now = 50.0
    assert passes(one, "a", 1) == 0


def test_full_buckets_are_forgotten() -> None:
    clock = Clock(0.0)
    one = budget(clock)
    for i in range(200_000):
        clock.now = i / 1000
        one.charge(f"key {i}", 1)  # each is busy for 2 s: 2,000 at any time
    assert isinstance(one.accounts, Buckets)
    assert len(one.accounts) < 2000 + 256 * 8 + 2000
