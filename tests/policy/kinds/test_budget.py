"""Budgets of bits: what a row costs at admission and in the end, whose bucket pays, and rates that share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.core.assessment import Assessment, Findings, allowed
from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served
from gateway.policy.kinds import GuardPolicy
from gateway.policy.kinds.budget import BudgetPolicy
from gateway.policy.kinds.information import InformationBudget
from gateway.policy.kinds.kind import LedgerUse, Services, SharedAccounts
from gateway.policy.kinds.rate import RatePolicy
from guards.fitted_prices import FittedPrices, HonestUse, ThiefCost
from guards.gcra import Buckets
from guards.priced import PricedBudget
from guards.rate import RateGuard
from guards.spending import Spending
from tests.guards.test_rate import Clock

TIER_BITS = 9.0
SURE = Served({"probabilities": np.array([[1.0, 0.0, 0.0]])}, "primary")
TORN = Degraded({"probabilities": np.array([[0.5, 0.5, 0.0]])}, "small", Reason.ABSTAINED)
ABSTAINED = Refused(Reason.ABSTAINED)
USE = HonestUse(100, 1.0, 0.001, review=False)
FITTED = FittedPrices(USE, 2.0, 4.0, 3.0, 1.2, 1.5, 0.05, 11980, 6, 1.3, (ThiefCost("active", 4.0, 0.5),))


def policy(**fields: Any) -> Any:
    given: dict[str, Any] = {"name": "extraction", "kind": "budget", "budget": {"per_s": 1.0, "burst": 100.0}}
    given |= {"budget_s": 0.002, "on_error": "refuse"} | fields
    return TypeAdapter(GuardPolicy).validate_python({k: v for k, v in given.items() if v is not None})


class World:
    """What a budget gets, on a fake clock; `asked`: for which accounts it asks."""

    def __init__(self) -> None:
        self.clock, self.asked = Clock(), list[LedgerUse]()
        self.accounts, self.rates = Buckets(), dict[str, float]()

    def services(self, bits: Callable[[str], float] = lambda principal: TIER_BITS) -> Services:
        return Services(
            self.clock,
            self.rates.get,
            bits,
            lambda name: name.startswith("trusted"),
            self.shared,
            anonymous_bits=TIER_BITS,
            novelty_guards=("ood", "noise"),
            fitted={"extraction": FITTED},
        )

    def shared(self, use: LedgerUse) -> SharedAccounts:
        self.asked.append(use)
        return SharedAccounts(self.accounts, Spending())


def metered(world: World, **fields: Any) -> InformationBudget:
    budget = policy(**fields).meter(world.services())
    assert isinstance(budget, InformationBudget)
    return budget


def decided(ends: Iterable[Outcome | None]) -> list[Decision | None]:
    return [None if end is None else Decision(f"row {i}", end) for i, end in enumerate(ends)]


def passes(budget: Any, rows: int, principal: str = "ada") -> int:
    return sum(score < 1 for score in budget.charge(principal, rows))


def price_of(budget: InformationBudget, *ends: Outcome | None) -> float:
    return budget.price_of(10.0, decided(ends))


def test_a_row_costs_the_base_and_the_bits_of_its_callers_tier_when_it_is_admitted() -> None:
    budget = metered(World())
    assert passes(budget, 50) == 10
    assert budget.spending.top(1) == [("ada", 100.0, 40)]


@pytest.mark.parametrize(
    ("end", "price"),
    [
        (SURE, 10.0),
        (TORN, 14.0),
        (Served({"value": np.array([[3.0]])}, "primary"), 10.0),
        (Served({}, "primary"), 10.0),
        (ABSTAINED, 50.0),
        (Refused(Reason.UNAVAILABLE), 10.0),
        (Refused(Reason.DEADLINE), 10.0),
        (Refused(Reason.RATE_LIMITED, 3.0), 10.0),
        (Refused(Reason.INVALID), 10.0),
        (Deferred("t", Reason.ABSTAINED), 10.0),
        (None, 10.0),
    ],
)
def test_what_a_row_costs_in_the_end_depends_on_how_it_ended(end: Outcome | None, price: float) -> None:
    assert price_of(metered(World()), end) == pytest.approx(price)
    assert price_of(metered(World()), SURE, end, TORN) == pytest.approx(price + 24)


def test_the_weights_of_the_policy_are_those_of_the_price() -> None:
    budget = metered(World(), prices={"base": 2.0, "uncertainty": 8.0, "refusal_factor": 3.0})
    assert price_of(budget, TORN, ABSTAINED) == pytest.approx(18 + 30)
    assert passes(budget, 50) == 9, "of eleven bits each"


def test_a_model_of_two_classes_with_one_score_is_unsure_in_the_middle() -> None:
    budget = metered(World())
    middle, end = (Served({"probabilities": np.array([[p]])}, "primary") for p in (0.5, 1.0))
    assert price_of(budget, middle) == pytest.approx(14)
    assert price_of(budget, end) == pytest.approx(10)


def test_what_rows_cost_in_the_end_is_taken_from_the_budget() -> None:
    budget = metered(World())
    assert passes(budget, 2) == 2
    budget.settle_rows("ada", decided([ABSTAINED, SURE]), 0)
    assert budget.spending.top(1)[0].units == pytest.approx(60)
    assert passes(budget, 50) == 4


def test_rows_that_repeat_what_their_caller_was_told_are_free() -> None:
    budget = metered(World())
    assert passes(budget, 5) == 5
    budget.settle_rows("ada", decided([SURE]), 4)
    assert budget.spending.top(1)[0].units == pytest.approx(10)
    assert passes(budget, 50) == 9


def test_asking_while_refused_lengthens_the_wait_by_ten_seconds_of_the_rate_at_most() -> None:
    world = World()
    budget = metered(world)
    passes(budget, 10)
    for _ in range(20):
        passes(budget, 50)
    wait_s = (budget.charge("ada", 1)[0] - 1) * policy().retry_scale_s
    assert wait_s == pytest.approx(10 + 10)
    world.clock.now += wait_s
    assert passes(budget, 1) == 1


def test_more_names_give_no_more_bits_of_the_model_except_to_trusted_keys() -> None:
    budget = metered(World(), model_budget={"per_s": 1.0, "burst": 200.0})
    assert sum(passes(budget, 5, f"caller {i}") for i in range(50)) == 20
    assert sum(passes(budget, 5, f"trusted {i}") for i in range(50)) == 250


def test_a_tier_that_shows_more_costs_more() -> None:
    bits = {"ada": 4.0, "bob": 99.0}
    budget = policy().meter(World().services(bits.__getitem__))
    assert (passes(budget, 50, "ada"), passes(budget, 50, "bob")) == (20, 1)


def test_the_accounts_are_those_of_the_guard_at_its_ledger() -> None:
    world = World()
    for ledger in ("local", "ray", "redis://host:6379/0"):
        policy(ledger=ledger, on_error="defer").meter(world.services())
    assert [use.ledger for use in world.asked] == ["local", "ray", "redis://host:6379/0"]
    assert set(world.asked) == {
        LedgerUse("extraction", "budget", use.ledger, "refuse") for use in world.asked
    }
    policy(on_error="allow").meter(world.services())
    assert world.asked[-1].on_error == "allow"


@pytest.mark.parametrize("place", ["", "Local", "file:///x", "http://host", "redis://"])
def test_what_is_no_place_of_a_ledger_is_refused(place: str) -> None:
    with pytest.raises(ValidationError):
        policy(ledger=place)


@pytest.mark.parametrize("place", ["redis://u:secret@host", "rediss://host?password=x", "redis://[::1"])
def test_a_place_that_holds_a_password_or_is_no_url_contradicts_itself(place: str) -> None:
    rate = {"kind": "rate", "per_s": 1.0, "burst": 1.0}
    given = {"name": "rate", "budget_s": 0.002, "on_error": "allow", "ledger": place}
    several = (policy(ledger=place), RatePolicy.model_validate(rate | given))
    for one in several:
        ((field, what),) = one.contradictions()
        assert field == ("ledger",)
        assert "secret" not in what
    assert list(policy(ledger="redis://user@host:6379/0?protocol=3").contradictions()) == []


def rate(**fields: Any) -> RatePolicy:
    given = {
        "name": "rate",
        "kind": "rate",
        "per_s": 10.0,
        "burst": 20.0,
        "budget_s": 0.01,
        "on_error": "allow",
    }
    return RatePolicy.model_validate(given | fields)


def test_a_rate_without_a_ledger_is_each_replicas_own_as_before() -> None:
    world = World()
    assert isinstance(rate().meter(world.services()), RateGuard)
    assert world.asked == []


def test_a_rate_with_a_ledger_refuses_as_one_without_and_keeps_to_the_keys_own_rates() -> None:
    world = World()
    world.rates |= {"double": 20.0, "slow": 0.1, "none": 0.0}
    one, other = rate().meter(world.services()), rate(ledger="local").meter(world.services())
    assert isinstance(other, PricedBudget)
    assert world.asked == [LedgerUse("rate", "rate", "local", "allow")]
    for _ in range(40):
        for name in ("usual", *world.rates):
            own, shared = one.charge(name, 3), other.charge(name, 3)
            assert [score < 1 for score in own] == [score < 1 for score in shared]
            for a, b in zip(own, shared, strict=True):
                assert a < 1 or math.isinf(a) or b == pytest.approx(a, abs=0.3), "about the same wait"
        world.clock.now += 0.07


def test_a_promise_names_both_budgets() -> None:
    assert policy().promise() == "At most 100 bits and 1 a second for each caller, over all replicas."
    both = policy(model_budget={"per_s": 2.0, "burst": 300.0}).promise()
    assert "300 bits and 2 a second for all untrusted callers together" in both
    assert "over all replicas" in rate(ledger="local").promise()


def test_a_budget_has_no_certified_field() -> None:
    assert BudgetPolicy.unbound == set(BudgetPolicy.model_fields)


HONEST = {"rows": 100, "per_s": 1.0}
IN_ROWS = {"budget": None, "honest": HONEST}


def said(**fields: Any) -> dict[tuple[int | str, ...], str]:
    """What contradicts in a policy, by field. A field of None is left out."""
    given = {"name": "extraction", "kind": "budget", "budget_s": 0.002, "on_error": "refuse", **fields}
    one = TypeAdapter(GuardPolicy).validate_python({k: v for k, v in given.items() if v is not None})
    return dict(one.contradictions())


@pytest.mark.parametrize(
    ("fields", "at", "what"),
    [
        ({}, (), "needs `budget`, the bits of each caller, or `honest`"),
        ({"budget": {"per_s": 1.0, "burst": 9.0}, "honest": HONEST}, ("budget",), "leave one of the two out"),
        ({"honest": HONEST, "prices": {"base": 2.0}}, ("prices",), "are fitted to `honest`"),
        ({"honest": HONEST, "prices": {}}, ("prices",), "are fitted to `honest`"),
        ({"honest": HONEST, "model_budget": {"per_s": 9.0, "burst": 9.0}}, ("model_budget",), "in `rows`"),
        (
            {"budget": {"per_s": 1.0, "burst": 9.0}, "model_budget": {"per_s": 9.0, "rows": 900}},
            ("model_budget",),
            "say it in bits",
        ),
        (
            {"honest": HONEST, "model_budget": {"per_s": 9.0, "rows": 99}},
            ("model_budget", "rows"),
            "is 99 for all callers, and `honest` allows each 100",
        ),
        (
            {"honest": HONEST, "model_budget": {"per_s": 0.5, "rows": 100}},
            ("model_budget", "per_s"),
            "is 0.5 for all callers",
        ),
    ],
)
def test_a_budget_that_is_stated_in_two_ways_or_in_none_says_what_to_leave_out(
    fields: dict[str, Any], at: tuple[str, ...], what: str
) -> None:
    found = said(**fields)
    assert list(found) == [at]
    assert what in found[at]


def test_each_form_alone_contradicts_nothing() -> None:
    assert said(honest=HONEST) == said(honest=HONEST, model_budget={"per_s": 1.0, "rows": 100}) == {}
    assert said(budget={"per_s": 1.0, "burst": 9.0}, prices={"novelty": 3.0}) == {}


@pytest.mark.parametrize(
    "honest",
    [
        {"rows": 9, "per_s": 1.0},
        {"rows": 100, "per_s": 0.0},
        {"rows": 100},
        {"rows": 10.5, "per_s": 1.0},
        HONEST | {"throttled": 0.0001},
        HONEST | {"throttled": 0.2},
        HONEST | {"burst": 7},
    ],
)
def test_what_honest_callers_cannot_do_or_no_rows_can_certify_is_refused(honest: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(honest=honest)


def test_fitted_prices_charge_what_honest_rows_cost_and_give_back_what_a_row_did_not() -> None:
    budget = metered(World(), **IN_ROWS)
    plain = 1 + TIER_BITS
    assert budget.budget.prices_of("ada") == pytest.approx(1.2 * plain)
    assert passes(budget, 500) == int(100 * 1.5 / 1.2)
    budget.settle_rows("ada", decided([SURE] * 125), 0)
    assert budget.spending.top(1)[0].units == pytest.approx(125 * plain)


def test_a_row_that_guards_found_rare_costs_more_however_it_ends() -> None:
    budget = metered(World(), **IN_ROWS)
    plain = 1 + TIER_BITS
    charged = budget.budget.prices_of("ada")
    for outcome, price in (
        (SURE, 1 + 4.0 / 2),
        (Deferred("t", Reason.ABSTAINED), 1 + 4.0 / 2),
        (ABSTAINED, 3 * (1 + 4.0 / 2)),
        (Refused(Reason.UNAVAILABLE), 1.0),
    ):
        one = Decision("row", outcome, found_by(ood=3.5, noise=1.0, rate=9.0))
        assert budget.price_of(charged, [one]) == pytest.approx(price * plain)


def found_by(**scores: float) -> Findings:
    """What guards found for a row of a batch of two."""
    at = np.arange(2)
    return Findings(
        [
            (at, Assessment(stage, np.array([0.0, score]), allowed(2), True, True, 0.0))
            for stage, score in scores.items()
        ],
        1,
    )


def test_the_prices_of_the_policy_know_novelty_where_they_name_it() -> None:
    rare = Decision("row", SURE, found_by(ood=7.0))
    assert metered(World()).price_of(10.0, [rare]) == 10
    assert metered(World(), prices={"novelty": 6.0}).price_of(10.0, [rare]) == pytest.approx(16)


def test_asking_while_refused_costs_each_tier_the_same_number_of_rows() -> None:
    bits = {"ada": 9.0, "bob": 99.0}
    budget = policy(**IN_ROWS).meter(World().services(bits.__getitem__))
    waits = []
    for who in bits:
        passes(budget, 500, who)
        for _ in range(30):
            passes(budget, 500, who)
        waits.append(budget.charge(who, 1)[0])
    assert waits[0] == pytest.approx(waits[1])


def test_all_untrusted_callers_together_have_the_rows_that_the_policy_says() -> None:
    budget = metered(World(), **IN_ROWS, model_budget={"rows": 400, "per_s": 1.0})
    assert sum(passes(budget, 100, f"caller {i}") for i in range(50)) == int(400 * 1.5 / 1.2)
    assert sum(passes(budget, 100, f"trusted {i}") for i in range(10)) == 1000


def test_a_promise_in_rows_says_whom_it_covers() -> None:
    told = policy(**IN_ROWS, model_budget={"rows": 400, "per_s": 2.0}).promise()
    assert "At most 0.001 of honest callers" in told and "100 rows at once and 1 a second" in told
    assert told.endswith("all untrusted callers together get 400 rows and 2 a second.")
