"""A stolen model agrees with its victim, and what an attacker's scores are."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.attacks.extraction import Loot, Theft, extract, tier_of
from gateway.redteam.attacks.membership import auc, robustness, tpr
from gateway.redteam.figures import rows_to_fidelity
from gateway.redteam.run import Limits
from gateway.redteam.thefts import shared_out
from tests.support.attacked import Linear, Scripted, linear_model, picture_space

RNG = np.random.default_rng(0)
POOL, HELD = RNG.standard_normal((600, 64)), RNG.standard_normal((300, 64))
VICTIM = Linear(linear_model(1).weights * 0.5)


def limits(queries: int = 1000) -> Limits:
    return Limits(queries, time.monotonic() + 60)


def stolen(*models: Linear | Scripted, queries: int = 1000, active: bool = False) -> Theft:
    loot = Loot(HELD, VICTIM.probabilities(HELD).argmax(axis=1), 3)
    extract(models, POOL, loot, limits(queries), np.random.default_rng(0), theft := Theft(), active=active)
    return theft


def test_a_simple_model_is_stolen_with_few_rows() -> None:
    theft = stolen(VICTIM)
    assert [one.rows for one in theft.curve] == [50, 100, 200, 400, 600]
    assert rows_to_fidelity(theft.curve, 0.8) is not None
    assert theft.curve[-1].fidelity > theft.curve[0].fidelity


def test_the_queries_are_spread_over_the_keys() -> None:
    several = [Linear(VICTIM.weights) for _ in range(3)]
    stolen(*several)
    assert [one.asked for one in several] == [200, 200, 200]


def test_a_theft_ends_at_its_limit_and_has_its_last_fidelity() -> None:
    theft = stolen(VICTIM, queries=130)
    assert theft.ended == "queries" and theft.tally.queries == 130
    assert [one.rows for one in theft.curve] == [50, 100, 130]


def test_rows_without_an_answer_teach_nothing() -> None:
    def answer(n: int, row: F8) -> Answer:
        return VICTIM.ask(row[None])[0] if n % 2 else Answer("deferred", "abstained")

    theft = stolen(Scripted(answer))
    assert theft.curve[-1].answered == 300 and theft.tally.first_alarm == 2
    silent = stolen(Scripted(lambda n, row: Answer("refused", "rate_limited")))
    assert {one.fidelity for one in silent.curve} == {0.0}


def test_active_queries_are_those_of_which_the_thief_is_least_sure() -> None:
    seen: list[F8] = []

    def answer(n: int, row: F8) -> Answer:
        seen.append(row)
        return VICTIM.ask(row[None])[0]

    stolen(Scripted(answer), active=True, queries=200)
    sure = VICTIM.probabilities(np.array(seen)).max(axis=1)
    assert sure[50:200].mean() < sure[:50].mean()


@pytest.mark.parametrize(
    ("p", "tier"),
    [
        ([0.123456789, 0.876543211, 0.0], "top: 2"),
        ([0.12, 0.85, 0.03], "rounded: 2"),
        ([0.0, 1.0, 0.0], "label"),
        ([0.123456789, 0.276543211, 0.6], "full"),
    ],
)
def test_the_tier_is_seen_from_the_answers(p: list[float], tier: str) -> None:
    assert tier_of([Answer("served", "ok", 1, np.array(p))] * 3) == tier


def test_the_tier_of_labels_alone_and_of_nothing() -> None:
    assert tier_of([Answer("served", "ok", 1)]) == "label"
    assert tier_of([Answer("refused", "abstained")]) == "none seen"


def test_the_rate_of_true_positives_is_that_at_one_false_one_in_a_thousand() -> None:
    others = np.arange(2000.0)
    assert tpr(np.array([1996.5, 1997.5, 1998.5, 3000.0]), others) == 0.75
    assert tpr(np.array([1.0, 3.0]), np.array([0.0, 2.0])) == 0.5  # fewer than 1,000: above all of them
    assert tpr(np.empty(0), others) is None and auc(others, np.empty(0)) is None
    assert auc(np.array([1.0, 3.0]), np.array([0.0, 2.0])) == 0.75


def test_a_label_that_withstands_noise_scores_higher() -> None:
    space, rng = picture_space(), np.random.default_rng(0)

    def ask(row: F8) -> Answer:
        return Answer("served", "ok", int(row.mean() > 0.5))

    firm, weak = (robustness(np.full(64, at), 0, space, ask, rng) for at in (0.3, 0.499))
    assert firm > 0.99 > 0.8 > weak
    silent = robustness(np.full(64, 0.3), 0, space, lambda row: Answer("deferred", "abstained"), rng)
    assert silent < 0.01


def test_each_theft_has_keys_of_its_own_while_there_are_enough() -> None:
    keys = [Linear(VICTIM.weights) for _ in range(12)]
    at = {id(one): i for i, one in enumerate(keys)}
    assert [[at[id(one)] for one in share] for share in shared_out(keys, [1, 10, 1, 1])] == [
        [0], list(range(1, 11)), [11], [0],
    ]  # fmt: skip
