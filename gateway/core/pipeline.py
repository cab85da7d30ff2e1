"""The one executor: guards once, then down the rungs, then human review, then refusal.

    batch ──> guards (all rows, verdicts joined by max)
                ├─ refuse ───────────────────────────────────────────────> Refused
                ├─ rung 0 cannot take the row ───────────────────────────> Refused(invalid)
                ├─ allow ──> rung 0 ──checks──> Served
                ├─ degrade, or rung 0 failed ──> rung 1.. ──checks──> Degraded
                ├─ defer, or no rung left ──> review queue ──> Deferred
                └─ the queue is full, or down, or full of this caller's ─> Refused
                   (and all that would go there, where there is no queue)

`decide` is total: every row in gets exactly one outcome out, in order, and nothing is raised but our own
cancellation. This holds by construction: each part has a time limit and its failure is a value (`stage.py`,
`batch.py`), and the last step, `Refused`, calls no part.

Two rules keep it monotone (a more suspicious row never ends better). Guards judge the request and may use
the whole lattice; checks judge one rung's answer and may only say "try the next rung". And a row that any
enforced guard refuses skips every later stage, which can only matter to that row.

The first rung says which rows are valid, so every row that no guard refuses is in its pass, also one that
may not have its answer: or a row that is more suspicious would be deferred, where a less suspicious one is
refused as invalid. Where guards read features, that is the pass that they share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from gateway.core.assessment import Assessment, Findings, Trail, allowed, unscored
from gateway.core.batch import Answered, Batch
from gateway.core.budget import BudgetStage
from gateway.core.deadline import call_within, now_s
from gateway.core.decision import (
    Decision,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Tensors,
    Verdict,
)
from gateway.core.deferral_cap import DeferralCap
from gateway.core.errors import StageFailure, StoreFailed
from gateway.core.model import Forward, Model
from gateway.core.recall import Recall
from gateway.core.rows import Row, RowIndices, row_indices
from gateway.core.stage import FeatureStage, Stage
from gateway.core.transitions import answered, reason_of, reviewed, unreviewed, worst_answered

CAP_RETRY_S = 1.0
AnyGuard: TypeAlias = Stage[Batch] | FeatureStage


def is_enforced(guard: AnyGuard) -> bool:
    """Whether a guard's verdicts act."""
    return guard.full.enforce if isinstance(guard, FeatureStage) else guard.enforce


@dataclass(frozen=True, slots=True)
class Rung:
    """One model of the ladder and the checks that its answers must pass."""

    model: Model
    checks: tuple[Stage[Answered], ...] = ()
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.model.name)


@dataclass(frozen=True, slots=True, eq=False)
class ReviewRequest:
    """One row for a reviewer: its inputs, the findings, and the answer of a model if there is one."""

    id: str
    principal: str
    reason: Reason
    inputs: Tensors
    findings: tuple[Finding, ...]
    suggestion: Tensors | None


class Review(Protocol):
    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool | Refused]:
        """Stores requests durably, in order; False where there is no room. May raise.

        A refusal where there is none for this caller: the row ends so.
        """
        ...


class _BatchState:
    """The state of one batch, by row: its most severe verdict so far, its outcome, its reason.

    Most batches are allowed by every stage: then nothing is copied.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.live = batch  # the rows that no guard has refused, with their forward passes
        self.rows: RowIndices = row_indices(len(batch))  # the positions of the live rows in the batch
        self.verdicts = np.zeros(len(batch), np.int8)
        self.outcomes: list[Outcome | None] = [None] * len(batch)
        self.ended = np.zeros(len(batch), bool)
        self.open = len(batch)
        self.any_objection = False  # whether any row has a verdict above ALLOW or an outcome
        self.reasons: dict[int, Reason] = {}
        self.suggestions: dict[int, Tensors] = {}
        self.repeats: set[int] = set()
        self.trail: list[tuple[RowIndices, Assessment]] = []
        for stage, scores in batch.charges:  # what a budget refuses is not in the batch
            self.join(self.rows, stage.assessment(scores), stage.reason)

    def end(self, row: int, outcome: Outcome) -> None:
        """Gives a row its one outcome."""
        self.outcomes[row] = outcome
        self.ended[row] = True
        self.open -= 1
        self.any_objection = True

    def open_rows(self, most_severe: Verdict) -> tuple[Batch, RowIndices]:
        """The rows without an outcome and with a verdict up to `most_severe`; and their positions."""
        if not self.any_objection:
            return self.live, self.rows
        keep = np.flatnonzero(~self.ended[self.rows] & (self.verdicts[self.rows] <= most_severe))
        if len(keep) == len(self.rows):
            return self.live, self.rows
        return self.live.take(keep), self.rows[keep]

    def join(self, rows: RowIndices, found: Assessment, reason: Reason) -> None:
        """Joins a stage's verdicts, if it is enforced; the most severe verdict sets the reason."""
        self.trail.append((rows, found))
        if found.all_allowed or not found.enforced:
            return
        for at in np.flatnonzero(found.verdicts > self.verdicts[rows]):
            row = int(rows[at])
            self.verdicts[row] = found.verdicts[at]
            self.any_objection = True
            self.reasons[row] = reason_of(reason, failed=int(at) in found.errors)

    def decisions(self, policy: str) -> list[Decision | None]:
        """One a row, in order; None for a row that is still open."""
        return [
            None
            if outcome is None
            else Decision(id_, outcome, Findings(self.trail, row), policy, row in self.repeats)
            for row, (id_, outcome) in enumerate(zip(self.batch.ids, self.outcomes, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One decision a row, in order; None for the rows that `finish_review` decides.

    budget_share: how much of its budget a model's pass took, of all passes the most.
    """

    decisions: Sequence[Decision | None]
    finish_review: Callable[[], Awaitable[BatchResult]] | None = None
    trail: Trail = ()
    budget_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Guards, rungs and review, compiled from one policy. Immutable; a reload builds another.

    review: None: no reviewer answers, and what needs one is refused. budgets: what rows are charged as they
    are admitted (`budget.py`), before they are in a batch; cap: of the deferrals of rows that no model
    answered; recalls: memories that may answer rows otherwise than the model did.
    """

    policy: str
    guards: tuple[AnyGuard, ...]
    rungs: tuple[Rung, ...]
    review: Review | None
    review_budget_s: float
    budgets: tuple[BudgetStage, ...] = ()
    cap: DeferralCap = field(default_factory=DeferralCap)
    recalls: tuple[Recall, ...] = ()
    models: Mapping[str, Model] = field(init=False)
    settles: bool = field(init=False)
    """Whether any budget wants to know how its rows have ended."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", {rung.name: rung.model for rung in self.rungs})
        object.__setattr__(self, "settles", any(stage.settled is not None for stage in self.budgets))

    async def decide(self, batch: Batch) -> list[Decision]:
        """Exactly one decision a row, in order. Raises nothing but our own cancellation."""
        result = await self.answer(batch)
        if result.finish_review is not None:
            result = await result.finish_review()
        return [decision for decision in result.decisions if decision is not None]

    async def answer(self, batch: Batch) -> BatchResult:
        """Decides what guards and models can; `finish_review` decides the rows that need review."""
        state = _BatchState(batch.with_models(self.models))
        if (now := now_s()) >= min(batch.deadlines_s):
            for row, deadline_s in enumerate(batch.deadlines_s):
                if deadline_s <= now:
                    state.end(row, Refused(Reason.DEADLINE))
        await self._judge(state)
        if state.open:
            if state.any_objection:
                state.live, state.rows = state.open_rows(Verdict.DEFER)
            primary = self.rungs[0].name
            answer = state.live.known(primary) or await state.live.run(primary)
            if answer.invalid is not None:
                _refuse_invalid(state, np.flatnonzero(answer.invalid), _attempt(primary, answer))
        for depth, rung in enumerate(self.rungs):
            if state.open:
                await self._try_rung(state, rung, depth)
        for recall in self.recalls:
            self._recall(state, recall)

        share = max(map(state.live.budget_share, self.models), default=0.0)
        if (review := self.review) is None:
            for row in np.flatnonzero(~state.ended).tolist():
                state.end(row, unreviewed(state.reasons.get(row)))
            return BatchResult(state.decisions(self.policy), None, state.trail, share)

        async def finish_review() -> BatchResult:
            await self._defer(state, review)
            return BatchResult(state.decisions(self.policy))

        finish = finish_review if state.open else None
        return BatchResult(state.decisions(self.policy), finish, state.trail, share)

    async def _judge(self, state: _BatchState) -> None:
        """Runs every guard on the rows that none has refused yet, and joins their verdicts."""
        for stage in self.guards:
            state.live, state.rows = state.open_rows(Verdict.REFUSE)
            if not state.rows.size:
                return
            found = await stage.assess(state.live, state.live.until_s)
            state.join(state.rows, found, stage.reason)
            if not state.any_objection:
                continue
            for at in np.flatnonzero(state.verdicts[state.rows] == Verdict.REFUSE):
                row = int(state.rows[at])
                state.end(row, Refused(state.reasons[row], stage.retry_after_s(float(found.scores[at]))))

    async def _try_rung(self, state: _BatchState, rung: Rung, depth: int) -> None:
        """Calls one rung for the rows that may have its answer; ends those that pass every check."""
        batch, rows = state.open_rows(worst_answered(depth))
        if not rows.size:
            return
        answer = batch.known(rung.name) or await batch.run(rung.name)
        state.trail.append((rows, _attempt(rung.name, answer)))
        passing: RowIndices = row_indices(len(rows)) if answer.all_ok else np.flatnonzero(answer.ok)
        for row in () if answer.all_ok else rows[~answer.ok]:
            state.reasons.setdefault(int(row), Reason.UNAVAILABLE)
        for check in rung.checks:
            if not passing.size:
                return
            every = Answered.of(batch, answer)
            judged = every if len(passing) == len(rows) else every.take(passing)
            found = await check.assess(judged, batch.until_s)
            state.trail.append((rows[passing], found))
            if found.enforced and not found.all_allowed:
                for at in passing[found.verdicts > Verdict.ALLOW]:
                    state.reasons.setdefault(int(rows[at]), check.reason)
                    state.suggestions.setdefault(int(rows[at]), Row(answer.outputs, int(at)))
                passing = passing[found.verdicts == Verdict.ALLOW]
        for at, row in zip(passing.tolist(), rows[passing].tolist(), strict=True):
            state.end(row, answered(depth, rung.name, Row(answer.outputs, at), state.reasons.get(row)))

    def _recall(self, state: _BatchState, recall: Recall) -> None:
        """Has a memory learn the answers, and gives rows those that it says, if its guard is enforced."""
        answers = {
            i: outcome
            for i, row in enumerate(state.rows.tolist())
            if isinstance(outcome := state.outcomes[row], (Served, Degraded))
        }
        given, repeats = recall.memory.recall(state.live, answers)
        state.repeats.update(state.rows.item(row) for row in repeats)
        if not given:
            return
        enforced = any(guard.name == recall.guard and is_enforced(guard) for guard in self.guards)
        state.trail += recall.trail(given, state.rows, enforced=enforced)
        for one in given if enforced else ():
            state.outcomes[state.rows.item(one.row)] = one.answer

    async def _defer(self, state: _BatchState, review: Review) -> None:
        """Puts the rows that are still open into the review queue, in order; refuses those it rejects."""
        self._refuse_over_cap(state)
        batch, rows = state.open_rows(Verdict.DEFER)
        if not rows.size:
            return
        cases = [self._case(state, batch, i, int(row)) for i, row in enumerate(rows)]
        answers: list[Sequence[bool | Refused]] = []

        async def put(some: Sequence[ReviewRequest]) -> None:
            answers.append(await review.put(some))

        with suppress(StageFailure):  # one that has stored the rows has not failed, however late it is
            await call_within("review", put, cases, self.review_budget_s, batch.until_s, StoreFailed)
        try:
            stored = [one if isinstance(one, Refused) else bool(one) for one in (answers or [()])[0]]
        except (TypeError, ValueError):
            stored = []
        if len(stored) != len(cases):
            stored = [False] * len(cases)
        for row, case, one in zip(rows, cases, stored, strict=True):
            state.end(int(row), reviewed(case.id, case.reason, one))

    def _refuse_over_cap(self, state: _BatchState) -> None:
        """Refuses rows that no model answered, beyond those of which reviewers get a sample."""
        _, rows = state.open_rows(Verdict.DEGRADE)
        unanswered = [
            row for row in rows.tolist() if state.reasons.get(row, Reason.UNAVAILABLE) is Reason.UNAVAILABLE
        ]
        for row in unanswered[self.cap.take(len(unanswered)) :]:
            state.end(row, Refused(Reason.UNAVAILABLE, CAP_RETRY_S))

    def _case(self, state: _BatchState, batch: Batch, i: int, row: int) -> ReviewRequest:
        known = (batch.known(rung.name) for rung in self.rungs)
        suggestion = next(
            (Row(answer.outputs, i) for answer in known if answer is not None and answer.ok[i]), None
        )
        return ReviewRequest(
            id=batch.ids[i],
            principal=batch.principals[i],
            reason=state.reasons.get(row, Reason.UNAVAILABLE),
            inputs={name: a[i : i + 1] for name, a in batch.inputs.items()},
            findings=tuple(Findings(state.trail, row)),
            suggestion=state.suggestions.get(row, suggestion),
        )


def _refuse_invalid(state: _BatchState, at: RowIndices, attempt: Assessment) -> None:
    """Ends the live rows that the first rung's model cannot take: they have no other rung, and no review."""
    errors = {i: attempt.errors[int(row)] for i, row in enumerate(at)}
    verdicts, scores = np.full(len(at), Verdict.REFUSE, np.int8), attempt.scores[at]
    state.trail.append((state.rows[at], attempt._replace(scores=scores, verdicts=verdicts, errors=errors)))
    for row in state.rows[at].tolist():
        state.end(row, Refused(Reason.INVALID))


def _attempt(rung: str, answer: Forward) -> Assessment:
    """A rung's attempt as an entry of the trail: no score, DEGRADE where it failed."""
    n = len(answer.ok)
    if answer.all_ok:
        return Assessment(rung, unscored(n), allowed(n), True, True, answer.elapsed_s)
    verdicts = np.where(answer.ok, np.int8(Verdict.ALLOW), np.int8(Verdict.DEGRADE))
    errors = {int(i): answer.error or "no answer" for i in np.flatnonzero(~answer.ok)}
    return Assessment(rung, unscored(n), verdicts, False, True, answer.elapsed_s, errors)
