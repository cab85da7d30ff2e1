"""Training rows are found where a model knows them by heart, by chance where it does not, in every tier."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from fallbacks.roles import PROBABILITIES
from gateway.core.rows import F8
from gateway.protocol.disclosure import Full, Label, Rounded, Tier, Top, disclose
from gateway.redteam.answers import SERVED, Answer
from gateway.redteam.attacks.membership import WIDEST, log_margin
from gateway.redteam.attacks.quantile import exceedances, features
from gateway.redteam.audit import LABEL_ONLY, QUANTILE, Asked, AuditView, ask_rows
from gateway.redteam.rows import Labelled
from gateway.redteam.run import Limits, Tally
from gateway.redteam.space import Column, Space
from gateway.redteam.substitute import Substitute

COLUMNS, CLASSES, OTHERS = 12, 4, 1200
TIERS: dict[str, Tier] = {"label": Label(), "rounded": Rounded(2), "top": Top(2), "full": Full()}


def rows(n: int, seed: int, noise: float) -> Labelled:
    """Four overlapping classes; a share of the labels is drawn at random, as nothing but memory can know."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    centres = np.random.default_rng(99).standard_normal((CLASSES, COLUMNS))
    x = centres[y] + rng.standard_normal((n, COLUMNS))
    y = np.where(rng.random(n) < noise, rng.integers(0, CLASSES, n), y)
    return Labelled(x, y)


@dataclass
class Disclosed:
    """A model behind a disclosure tier, as the gateway discloses."""

    model: Substitute | ByHeart
    tier: Tier
    rows_a_request: int = 1

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        p = self.model.probabilities(rows).astype(np.float32)
        shown = np.asarray(disclose({PROBABILITIES: p}, self.tier, frozenset())[PROBABILITIES], np.float64)
        return [Answer(SERVED, "ok", int(one.argmax()), one) for one in shown]


def space() -> Space:
    held = rows(200, 5, 0.0).x.astype(np.float32)
    return Space.of((Column("x", np.dtype(np.float32), (COLUMNS,)),), {"x": held})


@dataclass
class ByHeart:
    """Sure of the very rows that it was trained on and of no others: Parzen windows that are too narrow."""

    members: Labelled

    def probabilities(self, x: F8) -> F8:
        away = ((x[:, None] - self.members.x) ** 2).sum(axis=2)
        assert self.members.y is not None
        near = np.exp(-away / 0.5) @ np.eye(CLASSES)[self.members.y] + 1e-3
        return np.asarray(near / near.sum(axis=1, keepdims=True))


@cache
def fitted(overfitted: bool) -> tuple[Substitute, Labelled]:
    """A model and the rows that it was trained on: 150 of them by heart, or 6,000 that it cannot hold."""
    members = rows(150 if overfitted else 6000, 1, 0.4 if overfitted else 0.0)
    assert members.y is not None
    targets = np.eye(CLASSES)[members.y]
    return Substitute.fit(members.x, targets, np.random.default_rng(0)), members


def measured(overfitted: bool, tier: str, score: str, others: int = OTHERS) -> tuple[float, float]:
    """TPR and AUC of one test."""
    model, members = fitted(overfitted)
    outside = rows(others, 2, 0.4 if overfitted else 0.0)
    members = members.take(np.arange(min(len(members), others)))
    view = AuditView(space(), [], None, outside, members)
    limits, asked = Limits(100_000, time.monotonic() + 120), Asked()
    ask_rows(view, members, Disclosed(model, TIERS[tier]), score, limits, Tally(), 0, asked)
    assert sum(asked.member) == len(members) and len(asked.member) == len(members) + others
    found, auc = asked.measured(score, 0)
    assert found is not None and auc is not None
    return found, auc


@pytest.mark.parametrize("tier", ["rounded", "top", "full"])
def test_training_rows_known_by_heart_are_found_with_one_false_one_in_a_thousand(tier: str) -> None:
    members, others = rows(150, 1, 0.4), rows(OTHERS, 2, 0.4)
    view, asked = AuditView(space(), [], None, others, members), Asked()
    model = Disclosed(ByHeart(members), TIERS[tier])
    ask_rows(view, members, model, QUANTILE, Limits(10_000, time.monotonic() + 60), Tally(), 0, asked)
    found, auc = asked.measured(QUANTILE, 0)
    assert found is not None and found > 0.9
    assert auc is not None and auc > 0.99


def test_the_training_rows_of_an_overfitted_network_score_higher() -> None:
    _, auc = measured(True, "full", QUANTILE)
    assert auc > 0.8


@pytest.mark.parametrize("tier", TIERS)
def test_no_tier_hides_who_was_trained_on_as_its_labels_alone_tell(tier: str) -> None:
    _, auc = measured(True, tier, QUANTILE)
    assert auc > 0.65


def test_the_label_alone_finds_the_training_rows_of_an_overfitted_model() -> None:
    _, auc = measured(True, "label", LABEL_ONLY, others=300)
    assert auc > 0.65


@pytest.mark.parametrize("score", [QUANTILE, LABEL_ONLY])
@pytest.mark.parametrize("tier", TIERS)
def test_of_a_well_fitted_model_they_are_found_by_chance(tier: str, score: str) -> None:
    found, auc = measured(False, tier, score, others=OTHERS if score == QUANTILE else 300)
    assert found < 0.02 and abs(auc - 0.5) < 0.06


def test_what_a_row_is_expected_to_score_is_taken_off_its_score() -> None:
    """Without it the easy rows would be taken for members."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 3))
    member = np.arange(900) % 3 == 0
    scores = 10 * x[:, 0] + rng.standard_normal(900) + 4.0 * member
    z = features(x, np.zeros(900, np.intp), x[~member])
    inside, outside = exceedances(z, scores, member, rng)
    assert np.mean(inside[:, None] > outside) > 0.98
    assert np.mean(scores[member][:, None] > scores[~member]) < 0.7
    assert abs(outside.mean()) < 0.2 and outside.std() == pytest.approx(1, abs=0.15)


def test_the_margin_is_that_of_the_class_over_the_largest_other() -> None:
    assert log_margin(Answer("served", "ok", 0, np.array([0.6, 0.3, 0.1])), 1) == pytest.approx(np.log(0.5))
    assert log_margin(Answer("served", "ok", 2), 2) == WIDEST == -log_margin(Answer("served", "ok", 2), 1)
    assert log_margin(Answer("refused", "abstained"), 1) == -WIDEST
