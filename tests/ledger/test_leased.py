"""One replica's share of the buckets, on a fake clock: what it may spend, when it asks, and without a
ledger."""

from __future__ import annotations

import asyncio
import math

import pytest

from gateway.ledger.leased import REFILL_S, LeasedAccounts, Slices
from gateway.ledger.ledger import MOST_WANTS
from gateway.ledger.refill import Refill
from guards.gcra import Limit
from guards.priced import PricedBudget
from tests.guards.test_rate import Clock
from tests.support.ledgers import BookLedger, Replica

LIMIT, SLICES = Limit(10, 100), Slices(of_burst=0.2, initial_of_burst=0.05, share=0.5)
SLICE, INITIAL = 20, 5


@pytest.fixture
def ledger() -> BookLedger:
    return BookLedger(Clock())


def pass_time(ledger: BookLedger, seconds: float) -> None:
    assert isinstance(ledger.clock, Clock)
    ledger.clock.now += seconds


def left_of(ledger: BookLedger) -> float:
    """What the one bucket of the ledger holds."""
    _, tats_s, _ = ledger.book.content()
    return LIMIT.burst - max(0.0, float(tats_s[0]) - ledger.clock()) * LIMIT.per_s


def test_the_first_rows_of_a_principal_are_spent_before_any_lease_and_owed(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    assert replica.passes(50) == INITIAL
    assert ledger.calls == [], "nothing is asked on the way of a request"
    replica.ask()
    assert left_of(ledger) == 100 - INITIAL - SLICE
    assert replica.passes(50) == SLICE


def test_more_is_leased_when_half_a_slice_is_left_and_not_before(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    replica.passes(1)
    replica.ask()
    replica.passes(SLICE // 2)
    assert not replica.accounts.needs
    replica.passes(1)
    assert list(replica.accounts.needs) == ["a"]
    replica.ask()
    assert replica.passes(50) == SLICE


def test_replicas_share_one_bucket(ledger: BookLedger) -> None:
    replicas = [Replica(ledger, LIMIT, SLICES) for _ in range(4)]
    passed = 0
    for _ in range(20):
        for replica in replicas:
            passed += replica.passes(50)
            replica.ask()
    assert passed == 100, "what was owed is paid before more is leased"


def test_what_the_ledger_is_told_is_no_name(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    replica.passes(1, "ada")
    replica.ask()
    (want,) = ledger.calls[0].wants
    assert len(want.key) == 16
    assert b"ada" not in want.key
    other = LeasedAccounts("other scope", SLICES)
    assert want.key == replica.accounts.key_of("ada") != other.key_of("ada")


def test_a_caller_that_waits_as_told_finds_its_row_leased_when_it_comes_back(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, price=4.0, most_penalty=50.0)
    while replica.passes(5):
        replica.ask()
    for _ in range(10):
        wait_s = replica.wait_s()
        assert 0 < wait_s <= (50 + 4) / 10 + REFILL_S + 1e-6
        for _ in range(200):  # the loop looks every few milliseconds
            pass_time(ledger, wait_s / 200)
            replica.ask()
        assert replica.passes(1) == 1


def test_a_bucket_that_is_only_not_leased_yet_costs_no_penalty(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, most_penalty=50.0)
    replica.passes(50)
    assert replica.wait_s() == pytest.approx(REFILL_S)
    replica.ask()
    assert left_of(ledger) == 100 - INITIAL - SLICE


def test_a_row_dearer_than_a_slice_is_leased_whole(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, price=60.0)
    assert replica.passes(1) == 0
    replica.ask()
    assert replica.passes(1) == 1


def test_rows_settled_above_what_is_here_are_owed(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    replica.passes(1)
    replica.budget.settle("a", charged=1, price=131)
    replica.ask()
    assert left_of(ledger) == pytest.approx(-31)
    assert replica.passes(1) == 0
    pass_time(ledger, 3.2)
    replica.ask()
    assert replica.passes(5) == 1


def test_refunds_above_a_slice_go_back_to_the_ledger(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    for _ in range(5):
        assert replica.passes(10)
        replica.ask()
    spent = 100 - left_of(ledger)
    replica.budget.settle("a", charged=45, price=0)
    replica.ask()
    assert 100 - left_of(ledger) == SLICE < spent


def test_the_end_of_a_replica_gives_back_what_it_has_not_spent(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, model_limit=Limit(10, 20_000))
    names = [f"caller {i}" for i in range(MOST_WANTS + 7)]
    for name in names:
        replica.passes(1, name)
    asyncio.run(replica.refill.give_back())
    _, tats_s, _ = ledger.book.content()
    assert sum(tats_s - ledger.clock()) == pytest.approx(len(names) / 10 * 2, rel=0.01)
    assert replica.accounts.leftovers() == []


@pytest.mark.parametrize("reply_lost", [False, True])
def test_what_is_owed_reaches_a_ledger_once_that_was_gone(ledger: BookLedger, reply_lost: bool) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    replica.passes(INITIAL)
    ledger.is_gone, ledger.loses_replies = not reply_lost, reply_lost
    assert not any(replica.ask() for _ in range(10))
    ledger.is_gone = ledger.loses_replies = False
    assert replica.ask()
    replica.ask()
    lost = SLICE if reply_lost else 0
    assert left_of(ledger) == 100 - INITIAL - SLICE - lost, "a slice in a reply that was lost stays charged"


def test_since_when_the_ledger_is_gone_can_be_seen(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    assert replica.accounts.unreachable_since_s is None
    ledger.is_gone = True
    replica.ask()
    gone_s = ledger.clock()
    pass_time(ledger, 5)
    replica.ask()
    assert replica.accounts.unreachable_since_s == gone_s
    ledger.is_gone = False
    replica.ask()
    assert replica.accounts.unreachable_since_s is None


def test_without_the_ledger_refuse_spends_the_slice_and_then_tells_that_it_cannot(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, most_penalty=50.0)
    replica.passes(1)
    replica.ask()
    ledger.is_gone = True
    replica.ask()
    assert replica.passes(50) == SLICE
    assert all(math.isnan(score) for score in replica.budget.charge("a", 3))
    pass_time(ledger, 100)
    assert replica.passes(1) == 0
    ledger.is_gone = False
    replica.ask()
    replica.ask()
    assert left_of(ledger) == pytest.approx(80), "it paid no penalty for what was not its doing"


def test_without_the_ledger_allow_goes_on_with_the_share_and_pays_for_it_later(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, on_error="allow", most_penalty=50.0)
    replica.passes(1)
    replica.ask()
    ledger.is_gone = True
    replica.ask()
    passed = replica.passes(50)
    for _ in range(40):
        assert replica.wait_s() == pytest.approx(1 / (10 * 0.5))
        pass_time(ledger, 0.2)
        passed += replica.passes(3)
    assert passed == SLICE + 40
    pass_time(ledger, 1000)
    assert replica.passes(100) == SLICE, "no burst but a slice"
    ledger.is_gone = False
    before = left_of(ledger)
    replica.ask()
    replica.ask()
    assert left_of(ledger) == pytest.approx(before - 40 - SLICE - SLICE)


def test_the_bound_on_all_replicas_is_reached_and_not_passed(ledger: BookLedger) -> None:
    replicas = [Replica(ledger, LIMIT, SLICES) for _ in range(3)]
    for replica in replicas:
        replica.passes(1)
        replica.ask()
    pass_time(ledger, 9.5)  # the bucket is full again, and each replica still has its slice
    lives, passed = 3, 0
    for _ in range(9):
        for i, replica in enumerate(replicas):
            passed += replica.passes(100)
            replica.ask()
            passed += replica.passes(100)
            if lives < 23:
                replicas[i] = Replica(ledger, LIMIT, SLICES)
                passed += replicas[i].passes(100)
                replicas[i] = Replica(ledger, LIMIT, SLICES)  # killed before the ledger heard of it
                lives += 2
    bound = LIMIT.burst + 3 * SLICE + lives * INITIAL
    assert 0.7 * bound < passed <= bound


def test_a_rate_of_rows_holds_for_all_replicas_together(ledger: BookLedger) -> None:
    rates = {"double": Limit(20, 200), "free": Limit(math.inf, 100), "none": Limit(0, 100)}
    replicas = [Replica(ledger, LIMIT, SLICES, limits=rates.get) for _ in range(2)]
    passed = dict.fromkeys(("usual", *rates), 0)
    for _ in range(20):
        for replica in replicas:
            for name in passed:
                passed[name] += replica.passes(50, name)
            replica.ask()
    assert passed == {"usual": 100, "double": 200, "free": 2000, "none": 0}


def test_the_model_is_leased_as_well(ledger: BookLedger) -> None:
    replicas = [Replica(ledger, LIMIT, SLICES, model_limit=Limit(10, 150)) for _ in range(2)]
    passed = 0
    for i in range(60):
        for replica in replicas:
            passed += replica.passes(5, f"sybil {i}")
            replica.ask()
    assert passed == 150


def test_a_limit_that_was_raised_is_asked_for_at_once_and_what_was_spent_counts(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    while replica.passes(5):
        replica.ask()
    assert replica.wait_s() > REFILL_S
    replica.budget.limit = Limit(10, 250)
    passed = 0
    for _ in range(10):
        passed += replica.passes(200)
        replica.ask()
    assert passed == 150
    replica.budget.limit = LIMIT
    assert replica.passes(1) == 0


def test_another_budget_on_the_same_accounts_goes_on_with_the_models_bucket(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES, model_limit=Limit(10, 200))
    replica.passes(5)
    replica.ask()
    before = replica.accounts.lone.copy()
    again = PricedBudget(
        replica.accounts, LIMIT, lambda name: 1.0, ledger.clock, model_limit=Limit(10, 200)
    )  # as a reload compiles it, which may fail
    assert replica.accounts.lone == before
    assert sum(score < 1 for score in again.charge("a", 50)) == SLICE


def test_a_principal_is_forgotten_once_its_bucket_is_full(ledger: BookLedger) -> None:
    replica = Replica(ledger, LIMIT, SLICES)
    for i in range(20_000):
        replica.passes(1, f"caller {i}")
        pass_time(ledger, 0.01)
        while replica.accounts.needs:
            replica.ask()
    assert len(replica.accounts) < 1000 + 256 * 8 + 1000


def test_holds_what_is_stated_and_cuts_what_is_no_slice() -> None:
    accounts = LeasedAccounts("scope", SLICES)
    budget = PricedBudget(accounts, LIMIT, lambda name: 1.0, lambda: 1.0)
    for i in range(100_000):
        budget.charge(str(i), 1)
    assert accounts.bytes_held() / 100_000 <= 170
    for bad in (math.nan, -0.1, 1.1):
        for fields in ((bad, 0.1, 0.1), (0.1, bad, 0.1), (0.1, 0.1, bad)):
            with pytest.raises(ValueError, match="slices: "):
                Slices(*fields)
    with pytest.raises(ValueError, match="slices: "):
        Slices(0.0, 0.1, 0.1)


def test_the_loop_leases_in_the_background_and_ends_when_told(ledger: BookLedger) -> None:
    async def serve() -> int:
        accounts = LeasedAccounts("scope", SLICES)
        refill = Refill(accounts, ledger)
        budget = PricedBudget(accounts, Limit(1e-9, 100), lambda name: 1.0, ledger.clock)
        task = asyncio.create_task(refill.run())
        passed = 0
        for _ in range(40):
            passed += sum(score < 1 for score in budget.charge("a", 10))
            await asyncio.sleep(0.04)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return passed

    assert asyncio.run(serve()) == 100
    assert len(ledger.calls) < 30, "and asks no more than it needs"
