"""Fitted prices: thieves pay more than honest callers, of whom hardly any is over its budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from guards.fitted_prices import FittedPrices, HonestUse
from guards.honest_callers import needed
from guards.price import Told
from guards.price_fit import MOST_SLACK, RANDOM, REFUSAL_FACTORS, HonestRows, PricedRows, Weights, fit

N, CLASSES = 2000, 8
USE = HonestUse(rows=100, per_s=1.0, throttled=0.01, review=False)
DELTA = 0.05


def rows(seed: int, unsure: float, new: float, refused: float, n: int = N) -> PricedRows:
    """Rows of so much uncertainty and novelty on average, of which a share is refused."""
    rng = np.random.default_rng(seed)
    u, v = (np.minimum(rng.exponential(mean, n), 1.0) for mean in (unsure, new))
    told = [
        Told(1, 0, 1, 0.0, 0.0, float(n_)) if no else Told(1, 1, 0, float(u_), float(n_), 0.0)
        for u_, n_, no in zip(u, v, rng.random(n) < refused, strict=True)
    ]
    return PricedRows.of(told)


def honest(seed: int) -> HonestRows:
    return HonestRows(rows(seed, 0.05, 1 / 7, 0.02), np.random.default_rng(seed).integers(0, CLASSES, N))


THIEVES = {
    RANDOM: rows(10, 0.05, 1 / 7, 0.02),
    "active": rows(11, 0.6, 0.2, 0.2),
    "synthetic": rows(12, 0.1, 0.7, 0.5),
}


def fitted(thieves: dict[str, PricedRows] = THIEVES, use: HonestUse = USE, seed: int = 0) -> FittedPrices:
    return fit(honest(1), honest(2), thieves, use, DELTA, seed)


def test_the_same_rows_and_seed_give_the_same_prices() -> None:
    assert fitted() == fitted()
    assert fitted().allowance != fitted(seed=1).allowance


def test_prices_tell_thieves_apart_from_honest_callers() -> None:
    found = fitted()
    assert found.uncertainty > 0 and found.novelty > 0 and found.refusal_factor > 1
    cost = {one.kind: one.cost / found.honest for one in found.thieves}
    assert cost[RANDOM] == pytest.approx(1, rel=0.1), "no price can"
    assert cost["active"] > 2 and cost["synthetic"] > 4


@pytest.mark.parametrize(
    ("thief", "weight"), [(rows(3, 0.9, 1 / 7, 0.02), "uncertainty"), (rows(3, 0.05, 0.9, 0.02), "novelty")]
)
def test_what_marks_a_thief_is_what_costs(thief: PricedRows, weight: str) -> None:
    found = fitted({"only": thief})
    other = {"uncertainty": "novelty", "novelty": "uncertainty"}[weight]
    assert getattr(found, weight) > 2 * getattr(found, other)


def test_no_weight_is_made_up_where_nothing_marks_a_thief() -> None:
    found = fitted({"alike": rows(4, 0.05, 1 / 7, 0.02)})
    assert found.allowance < 1.1
    assert fitted({RANDOM: THIEVES[RANDOM], "alike": rows(4, 0.05, 1 / 7, 0.02)}) == replace(
        found, thieves=fitted({RANDOM: THIEVES[RANDOM], "alike": rows(4, 0.05, 1 / 7, 0.02)}).thieves
    ), "a thief with honest rows moves no weight"


def test_the_usual_refusal_factor_stays_where_nothing_is_refused() -> None:
    never = {"active": rows(5, 0.6, 0.2, 0.0)}
    one, other = (HonestRows(rows(seed, 0.05, 1 / 7, 0.0), honest(seed).classes) for seed in (1, 2))
    assert fit(one, other, never, USE, DELTA, 0).refusal_factor == REFUSAL_FACTORS[0]


def test_a_thief_of_whom_nothing_is_answered_is_told_as_if_one_row_were() -> None:
    found = fitted({"stopped": rows(6, 0.0, 1.0, 1.0), "active": THIEVES["active"]})
    (stopped, _) = found.thieves
    assert stopped.answered == 0 and stopped.cost > N


def test_the_budget_leaves_honest_callers_that_cost_most_room_but_not_beyond_the_bound() -> None:
    found = fitted()
    weights = Weights(found.uncertainty, found.novelty, found.refusal_factor)
    mean = float(weights.costs(honest(2).rows.told).mean())
    assert mean < found.allowance < 1.1 * MOST_SLACK * mean


@pytest.mark.parametrize("seed", range(3))
def test_fresh_callers_of_the_same_rows_are_over_their_budget_no_more_often_than_stated(seed: int) -> None:
    found, fresh = fitted(seed=seed), honest(2)
    costs = Weights(found.uncertainty, found.novelty, found.refusal_factor).costs(fresh.rows.told)
    n = 4000
    over = needed(costs, fresh.classes, n, USE.rows, np.random.default_rng(100 + seed)) > found.allowance
    assert over.sum() <= binom.ppf(1 - 1e-4, n, USE.throttled)
    assert over.sum() > 0, "the budget is not so large that it says nothing"


def test_a_hard_class_that_some_callers_send_alone_makes_the_budget_larger() -> None:
    """The same rows, in classes at random or by how uncertain they are."""
    only = {"active": THIEVES["active"]}
    without = fit(honest(1), honest(2), only, USE, DELTA, 0)
    with_hard = fit(by_difficulty(1), by_difficulty(2), only, USE, DELTA, 0)
    cost = {one: one.thieves[0].cost / one.allowance for one in (with_hard, without)}
    assert cost[with_hard] < cost[without], "so that a thief pays less, as the honest callers must"


def by_difficulty(seed: int) -> HonestRows:
    """The same rows as `honest`, the most uncertain ones in a class of their own."""
    same = honest(seed).rows
    return HonestRows(same, np.argsort(np.argsort(same.told[:, 1])) * CLASSES // N)
