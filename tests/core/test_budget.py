"""Budgets: rows are charged as they are admitted, and refused ones take no place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gateway.core.assessment import Assessment
from gateway.core.batch import Batch
from gateway.core.batching import concatenate
from gateway.core.budget import Budget, BudgetStage, admit, charge_first_row, refused_unread, settle
from gateway.core.decision import Decision, Deferred, Degraded, Outcome, Reason, Refused, Served, Verdict
from gateway.core.model import Model
from gateway.core.pipeline import Pipeline, Rung
from tests.support.core_parts import FakeModel, FakeReview, batch_of, run

WAIT_S = 2.0


class Scores:
    """A budget that returns given scores, and counts the rows that it charged."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.charged = scores, 0

    def charge(self, principal: str, rows: int) -> list[float]:
        first, self.charged = self.charged, self.charged + rows
        return list(self.scores[first : self.charged])


class Broken:
    def charge(self, principal: str, rows: int) -> list[float]:
        raise RuntimeError("the ledger is gone")


def stage(budget: Budget, name: str = "rate", **other: object) -> BudgetStage:
    fields = {"refuse_from": 1.0, "reason": Reason.RATE_LIMITED, "on_error": Verdict.DEFER}
    return BudgetStage(name, budget, **{"retry_scale_s": WAIT_S, **fields, **other})  # type: ignore[arg-type]


def rows(n: int) -> Batch:
    ids = tuple(f"r{i}" for i in range(n))
    return Batch(ids, ("ada",) * n, {"x": np.arange(n)}, (math.inf,) * n)


def found_in(batch: Batch) -> Assessment:
    """What the only budget found for the rows of a batch."""
    ((budget, scores),) = batch.charges
    return budget.assessment(scores)


def refusals(decisions: Sequence[Decision | None]) -> dict[str, Refused]:
    return {one.id: one.outcome for one in decisions if one is not None and isinstance(one.outcome, Refused)}


def test_rows_within_every_budget_go_on_with_what_was_found() -> None:
    batch = rows(2)
    assert admit([stage(Scores(0.2, 0.4)), stage(Scores(-1.0, -2.0), "bytes")], batch, "p") is None
    assert [(one.name, scores) for one, scores in batch.charges] == [
        ("rate", [0.2, 0.4]),
        ("bytes", [-1.0, -2.0]),
    ]


def test_a_row_over_a_budget_is_refused_with_its_wait_and_the_others_go_on() -> None:
    admission = admit([stage(Scores(0.5, 1.5, 0.9))], rows(3), "p")
    assert admission is not None and admission.admitted is not None
    assert refusals(admission.decisions) == {"r1": Refused(Reason.RATE_LIMITED, 0.5 * WAIT_S)}
    assert admission.admitted.ids == ("r0", "r2")
    assert admission.admitted.charges[0][1] == [0.5, 0.9]
    (found,) = admission.decisions[1].findings  # type: ignore[union-attr]
    assert (found.stage, found.score, found.verdict) == ("rate", 1.5, Verdict.REFUSE)


def test_no_batch_is_left_where_every_row_is_refused() -> None:
    admission = admit([stage(Scores(1.0, 3.0))], rows(2), "p")
    assert admission is not None and admission.admitted is None
    assert [one.outcome for one in admission.decisions if one] == [
        Refused(Reason.RATE_LIMITED, 0.0),
        Refused(Reason.RATE_LIMITED, 2 * WAIT_S),
    ]


def test_every_row_is_charged_to_every_budget_and_the_first_that_refuses_says_why() -> None:
    first, second = Scores(2.0, 0.0), Scores(3.0, 3.0)
    admission = admit([stage(first), stage(second, "bytes", retry_scale_s=None)], rows(2), "p")
    assert admission is not None
    assert (first.charged, second.charged) == (2, 2)
    assert refusals(admission.decisions) == {
        "r0": Refused(Reason.RATE_LIMITED, WAIT_S),
        "r1": Refused(Reason.RATE_LIMITED, None),
    }


def test_an_observed_budget_refuses_nothing_and_its_finding_is_kept() -> None:
    batch = rows(1)
    assert admit([stage(Scores(5.0), enforce=False)], batch, "p") is None
    assert found_in(batch).finding(0).verdict is Verdict.REFUSE


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_an_error(score: float) -> None:
    batch = rows(2)
    assert admit([stage(Scores(0.0, score))], batch, "p") is None
    assert found_in(batch).verdicts.tolist() == [Verdict.ALLOW, Verdict.DEFER]
    assert found_in(batch).finding(1).error == "rate: it has not charged the row"


def test_a_wait_that_never_ends_is_not_told() -> None:
    admission = admit([stage(Scores(math.inf))], rows(1), "p")
    assert admission is not None
    assert refusals(admission.decisions) == {"r0": Refused(Reason.RATE_LIMITED, None)}


@pytest.mark.parametrize("verdict", [Verdict.ALLOW, Verdict.DEGRADE, Verdict.DEFER])
def test_a_broken_budget_gives_each_row_what_the_policy_says(verdict: Verdict) -> None:
    batch = rows(2)
    assert admit([stage(Broken(), on_error=verdict)], batch, "p") is None
    assert found_in(batch).verdicts.tolist() == [verdict] * 2


def test_a_broken_budget_that_fails_closed_refuses_as_unavailable() -> None:
    admission = admit([stage(Broken(), on_error=Verdict.REFUSE)], rows(1), "p")
    assert admission is not None
    assert refusals(admission.decisions) == {"r0": Refused(Reason.UNAVAILABLE, None)}


def test_a_budget_that_returns_too_few_scores_is_broken() -> None:
    batch = rows(3)
    assert admit([stage(Scores(0.0, 0.0))], batch, "p") is None
    assert found_in(batch).finding(2).error == "rate: it has not charged the row"


@pytest.mark.parametrize("scores", [("high", "high"), ([0.1], [0.1]), (None, None)])
def test_a_budget_that_returns_no_numbers_is_broken(scores: tuple[object, object]) -> None:
    batch = rows(2)
    assert admit([stage(Scores(*scores))], batch, "p") is None  # type: ignore[arg-type]
    assert found_in(batch).finding(1).error == "rate: it has not charged the row"


class Exits:
    def charge(self, principal: str, rows: int) -> list[float]:
        raise SystemExit(3)


def test_sys_exit_in_a_budget_is_its_failure() -> None:
    batch = rows(1)
    assert admit([stage(Exits())], batch, "p") is None
    assert found_in(batch).finding(0).verdict is Verdict.DEFER


def test_what_was_found_stays_with_its_row_in_a_batch_of_several_requests() -> None:
    calm, broken = rows(2), rows(1)
    budget = stage(Scores(0.1, 0.2))
    admit([budget], calm, "p")
    budget.budget = Broken()
    admit([budget], broken, "p")
    together = concatenate([calm, broken])
    found = found_in(together)
    assert [found.finding(row).score for row in range(3)] == [0.1, 0.2, None]
    assert (found.all_allowed, list(found.errors)) == (False, [2])
    assert found_in(together.take(np.array([2]))).finding(0).verdict is Verdict.DEFER


def test_the_first_row_is_charged_before_the_others_and_each_row_once() -> None:
    budget = Scores(0.1, 0.2, 1.5)
    stages, batch = [stage(budget)], rows(3)
    batch.charges.extend(charge_first_row(stages, "ada"))
    assert refused_unread(batch.charges, "d1", "p") is None
    assert budget.charged == 1
    admission = admit(stages, batch, "p")
    assert admission is not None
    assert budget.charged == 3
    assert refusals(admission.decisions) == {"r2": Refused(Reason.RATE_LIMITED, 0.5 * WAIT_S)}


def test_rows_that_come_after_a_reload_are_charged_to_the_new_budgets() -> None:
    batch, budget = rows(2), Scores(0.1, 0.2)
    batch.charges.extend(charge_first_row([stage(Scores(0.0))], "ada"))
    assert admit([stage(budget)], batch, "p") is None
    assert budget.charged == 2
    assert [scores for _, scores in batch.charges] == [[0.1, 0.2]]


def test_a_request_of_which_a_budget_refuses_the_first_row_is_refused_unread() -> None:
    charges = charge_first_row([stage(Scores(0.5)), stage(Scores(1.5), "bytes")], "ada")
    refused = refused_unread(charges, "d1", "p")
    assert refused is not None
    assert refused[:2] == ("d1", Refused(Reason.RATE_LIMITED, 0.5 * WAIT_S))
    assert [(one.stage, one.score, one.verdict) for one in refused.findings] == [
        ("rate", 0.5, Verdict.ALLOW),
        ("bytes", 1.5, Verdict.REFUSE),
    ]


@pytest.mark.parametrize(
    "stages",
    [[], [stage(Scores(0.5))], [stage(Scores(1.5), enforce=False)], [stage(Broken())]],
    ids=["no budget", "within", "observed", "broken, and to be deferred"],
)
def test_the_body_is_read_where_no_budget_refuses_the_first_row(stages: list[BudgetStage]) -> None:
    assert refused_unread(charge_first_row(stages, "ada"), "d1", "p") is None


def test_a_broken_budget_that_fails_closed_refuses_unread() -> None:
    refused = refused_unread(charge_first_row([stage(Broken(), on_error=Verdict.REFUSE)], "ada"), "d1", "p")
    assert refused is not None and refused.outcome == Refused(Reason.UNAVAILABLE)


def test_a_row_exactly_at_the_limit_is_refused() -> None:
    admission = admit([stage(Scores(1.0))], rows(1), "p")
    assert admission is not None
    assert refusals(admission.decisions) == {"r0": Refused(Reason.RATE_LIMITED, 0.0)}
    assert refused_unread(charge_first_row([stage(Scores(1.0))], "ada"), "d1", "p") is not None


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [(Verdict.ALLOW, Served), (Verdict.DEGRADE, Degraded), (Verdict.DEFER, Deferred)],
)
def test_what_a_broken_budget_means_holds_in_the_pipeline(verdict: Verdict, outcome: type[Outcome]) -> None:
    async def main() -> Decision:
        batch = batch_of([0.0])
        assert admit([stage(Broken(), on_error=verdict)], batch, "p") is None
        rungs = tuple(Rung(Model(name, FakeModel(), 1.0)) for name in ("big", "small"))
        pipeline = Pipeline("p", (), rungs, FakeReview(), 1.0)
        return (await pipeline.decide(batch))[0]

    decision = run(main)
    assert isinstance(decision.outcome, outcome)
    first = decision.findings[0]
    assert (first.stage, first.verdict) == ("rate", verdict)


class Settling(Scores):
    """Scores, and what the budget is told of the rows in the end."""

    def __init__(self, *scores: float) -> None:
        super().__init__(*scores)
        self.told: list[tuple[str, list[Decision | None]]] = []
        self.repeats = 0

    def settle_rows(self, principal: str, ends: Sequence[Decision | None], repeats: int) -> None:
        self.told.append((principal, list(ends)))
        self.repeats += repeats


class CannotSettle(Scores):
    def settle_rows(self, principal: str, ends: Sequence[Decision | None], repeats: int) -> None:
        raise SystemExit(3)


def decided(batch: Batch) -> list[Decision]:
    return [Decision(id_, Served({}, f"model of {id_}")) for id_ in batch.ids]


def test_a_budget_is_told_once_a_request_how_the_rows_have_ended_that_it_admitted() -> None:
    budget, other, batch = Settling(0.5, 1.5, 0.9), Settling(0.1, 0.2, 1.0), rows(3)
    admit([stage(budget), stage(other, "bytes"), stage(Scores(0.0, 0.0, 0.0), "rate")], batch, "p")
    decisions = decided(batch)
    settle(batch, decisions)
    first, second, third = decisions
    assert budget.told == [("ada", [first, third])], "the row at 1.5 was not charged"
    assert other.told == [("ada", [first, second])], "nor the one at the limit"


def test_rows_that_repeat_what_their_caller_was_told_are_counted_apart() -> None:
    budget, batch = Settling(0.5, 0.6, 0.9), rows(3)
    admit([stage(budget)], batch, "p")
    first, second, third = decided(batch)
    settle(batch, [first._replace(repeats=True), second, third._replace(repeats=True)])
    assert budget.told == [("ada", [second])] and budget.repeats == 2
    settle(batch, [one._replace(repeats=True) for one in (first, second, third)])
    assert budget.told[1] == ("ada", []) and budget.repeats == 5, "also where every row is one"


@pytest.mark.parametrize("score", [1.0, 2.0, math.nan, -math.inf])
def test_rows_that_a_budget_has_not_admitted_are_not_settled(score: float) -> None:
    budget, batch = Settling(score), rows(1)
    admit([stage(budget, enforce=False)], batch, "p")
    settle(batch, decided(batch))
    assert budget.told == []


def test_rows_whose_caller_gave_up_are_settled_as_such() -> None:
    budget, batch = Settling(0.1, 0.2), rows(2)
    admit([stage(budget)], batch, "p")
    settle(batch, None)
    assert budget.told == [("ada", [None, None])]


def test_a_budget_that_cannot_settle_raises_nothing_and_the_next_one_does() -> None:
    budget, batch = Settling(0.1), rows(1)
    admit([stage(CannotSettle(0.1)), stage(budget, "bytes")], batch, "p")
    settle(batch, decided(batch))
    assert len(budget.told) == 1


def test_a_pipeline_knows_whether_any_budget_settles() -> None:
    rungs = (Rung(Model("big", FakeModel(), 1.0)),)
    for budgets, settles in (((), False), ((stage(Scores()),), False), ((stage(Settling()),), True)):
        assert Pipeline("p", (), rungs, None, 1.0, budgets).settles is settles
