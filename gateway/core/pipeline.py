"""The one executor: guards once, then down the rungs, then human review, then refusal.

    batch ──> guards (all rows, verdicts joined by max)
                ├─ refuse ───────────────────────────────────────────────> Refused
                ├─ allow ──> rung 0 ──checks──> Served
                ├─ degrade, or rung 0 failed ──> rung 1.. ──checks──> Degraded
                ├─ defer, or no rung left ──> review queue ──> Deferred
                └─ the queue is full or down ────────────────────────────> Refused

`decide` is total: every row in gets exactly one outcome out, in order, and nothing is raised but our own
cancellation. That is structure, not care: each part is bounded and its failure is a value (`stage.py`,
`batch.py`), and the last step, `Refused`, needs no part at all.

Two facts keep it monotone (a more suspicious row never ends better). Guards judge the request and may use
the whole lattice; checks judge one rung's answer and may only say "try the next rung". And a row that any
enforced guard refuses skips every later stage, which can only matter to that row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from gateway.core.batch import Answered, Batch
from gateway.core.deadline import call_within, now_s
from gateway.core.decision import (
    Decision,
    Deferred,
    Degraded,
    Finding,
    Outcome,
    Reason,
    Refused,
    Served,
    Tensors,
    Verdict,
)
from gateway.core.errors import StageFailure, StoreFailed
from gateway.core.model import Forward, Model
from gateway.core.rows import Row, RowIndices, row_indices
from gateway.core.stage import Assessment, FeatureStage, Stage, allowed, unscored

AnyGuard: TypeAlias = Stage[Batch] | FeatureStage
Trail: TypeAlias = Sequence[tuple[RowIndices, Assessment]]
"""Each stage's assessment, in order, with the rows of the batch that it judged, ascending."""


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
    """One row for a reviewer: its inputs, why no model may answer, and what a model would have answered."""

    id: str
    principal: str
    reason: Reason
    inputs: Tensors
    findings: tuple[Finding, ...]
    suggestion: Tensors | None


class Review(Protocol):
    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        """Stores requests durably, in order; False where there is no room. May raise."""
        ...


class _Run:
    """The state of one batch, by row of that batch: its lowest verdict (`fall`), its outcome, its reasons.

    Most rows of most batches are allowed by every stage: `rows` then stays as it was, nothing is copied.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.live = batch  # the rows that no guard has refused, with the forward passes computed for them
        self.rows: RowIndices = row_indices(len(batch))  # where the live rows stand in the batch
        self.fall = np.zeros(len(batch), np.int8)
        self.outcomes: list[Outcome | None] = [None] * len(batch)
        self.ended = np.zeros(len(batch), bool)
        self.open = len(batch)
        self.objection = False  # whether any row has fallen or has an outcome
        self.reasons: dict[int, Reason] = {}
        self.suggestions: dict[int, Tensors] = {}
        self.trail: list[tuple[RowIndices, Assessment]] = []

    def end(self, row: int, outcome: Outcome) -> None:
        """Gives a row its one outcome."""
        self.outcomes[row] = outcome
        self.ended[row] = True
        self.open -= 1
        self.objection = True

    def open_rows(self, deepest: Verdict) -> tuple[Batch, RowIndices]:
        """The rows without an outcome that have fallen no further than `deepest`, and where they stand."""
        if not self.objection:
            return self.live, self.rows
        keep = np.flatnonzero(~self.ended[self.rows] & (self.fall[self.rows] <= deepest))
        if len(keep) == len(self.rows):
            return self.live, self.rows
        return self.live.take(keep), self.rows[keep]

    def join(self, rows: RowIndices, found: Assessment, reason: Reason) -> None:
        """Lets an enforced stage's verdicts lower the rows; the lowest verdict gives the reason."""
        self.trail.append((rows, found))
        if found.quiet or not found.enforced:
            return
        for at in np.flatnonzero(found.verdicts > self.fall[rows]):
            row = int(rows[at])
            self.fall[row] = found.verdicts[at]
            self.objection = True
            self.reasons[row] = Reason.UNAVAILABLE if int(at) in found.errors else reason

    def decisions(self, policy: str) -> list[Decision | None]:
        """One a row, in order; None for a row that is still open."""
        return [
            None if outcome is None else Decision(id_, outcome, Findings(self.trail, row), policy)
            for row, (id_, outcome) in enumerate(zip(self.batch.ids, self.outcomes, strict=True))
        ]


class Findings(Sequence[Finding]):
    """The findings of one row, in order; each is made only when it is read."""

    __slots__ = ("row", "trail")

    def __init__(self, trail: Trail, row: int) -> None:
        self.trail = trail
        self.row = row

    def __iter__(self) -> Iterator[Finding]:
        for rows, found in self.trail:
            at = self.row
            if at >= len(rows) or rows[at] != at:  # not all rows came so far
                at = int(np.searchsorted(rows, at))
                if at == len(rows) or rows[at] != self.row:
                    continue
            yield found.finding(at)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, at: Any) -> Any:
        return tuple(self)[at]


@dataclass(frozen=True, slots=True)
class Ended:
    """How rows ended, one decision a row in order.

    known: those that are known now, with None for the rows that `finish_review` ends.
    """

    known: Sequence[Decision | None]
    finish_review: Callable[[], Awaitable[Ended]] | None = None
    trail: Trail = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Guards, rungs and review, compiled from one policy. Immutable; a reload builds another."""

    policy: str
    guards: tuple[AnyGuard, ...]
    rungs: tuple[Rung, ...]
    review: Review
    review_budget_s: float
    models: Mapping[str, Model] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", {rung.name: rung.model for rung in self.rungs})

    async def decide(self, batch: Batch) -> list[Decision]:
        """Exactly one decision a row, in order. Raises nothing but our own cancellation."""
        ended = await self.answer(batch)
        if ended.finish_review is not None:
            ended = await ended.finish_review()
        return [decision for decision in ended.known if decision is not None]

    async def answer(self, batch: Batch) -> Ended:
        """What guards and models settle; rows that need review are ended later by `finish_review`."""
        run = _Run(batch.asking(self.models))
        if (now := now_s()) >= min(batch.deadlines_s):
            for row, deadline_s in enumerate(batch.deadlines_s):
                if deadline_s <= now:
                    run.end(row, Refused(Reason.DEADLINE))
        await self._judge(run)
        for depth, rung in enumerate(self.rungs):
            if run.open:
                await self._try_rung(run, rung, depth)

        async def finish_review() -> Ended:
            await self._defer(run)
            return Ended(run.decisions(self.policy))

        return Ended(run.decisions(self.policy), finish_review if run.open else None, run.trail)

    async def _judge(self, run: _Run) -> None:
        """Runs every guard on every row that none has refused yet, and joins their verdicts."""
        for stage in self.guards:
            run.live, run.rows = run.open_rows(Verdict.REFUSE)
            if not run.rows.size:
                return
            found = await stage.assess(run.live, run.live.until_s)
            run.join(run.rows, found, stage.reason)
            if not run.objection:
                continue
            for at in np.flatnonzero(run.fall[run.rows] == Verdict.REFUSE):
                row = int(run.rows[at])
                run.end(row, Refused(run.reasons[row], stage.retry_after_s(float(found.scores[at]))))

    async def _try_rung(self, run: _Run, rung: Rung, depth: int) -> None:
        """Calls one rung for the rows that may have its answer; settles those that pass every check."""
        batch, rows = run.open_rows(Verdict.DEGRADE if depth else Verdict.ALLOW)
        if not rows.size:
            return
        answer = await batch.run(rung.name)
        run.trail.append((rows, _attempt(rung.name, answer)))
        alive: RowIndices = row_indices(len(rows)) if answer.whole else np.flatnonzero(answer.ok)
        for row in () if answer.whole else rows[~answer.ok]:
            run.reasons.setdefault(int(row), Reason.UNAVAILABLE)
        for check in rung.checks:
            if not alive.size:
                return
            answered = Answered.of(batch, answer)
            judged = answered if len(alive) == len(rows) else answered.take(alive)
            found = await check.assess(judged, batch.until_s)
            run.trail.append((rows[alive], found))
            if found.enforced and not found.quiet:
                for at in alive[found.verdicts > Verdict.ALLOW]:
                    run.reasons.setdefault(int(rows[at]), check.reason)
                    run.suggestions.setdefault(int(rows[at]), Row(answer.outputs, int(at)))
                alive = alive[found.verdicts == Verdict.ALLOW]
        for at, row in zip(alive.tolist(), rows[alive].tolist(), strict=True):
            output = Row(answer.outputs, at)
            if depth:
                run.end(row, Degraded(output, rung.name, run.reasons.get(row, Reason.UNAVAILABLE)))
            else:
                run.end(row, Served(output, rung.name))

    async def _defer(self, run: _Run) -> None:
        """Puts the rows that are still open into the review queue, in order; refuses those it rejects."""
        batch, rows = run.open_rows(Verdict.DEFER)
        if not rows.size:
            return
        cases = [self._case(run, batch, i, int(row)) for i, row in enumerate(rows)]
        try:
            taken = await call_within(
                "review", self.review.put, cases, self.review_budget_s, batch.until_s, StoreFailed
            )
            took = [bool(one) for one in taken]
        except (StageFailure, TypeError, ValueError):
            took = []
        if len(took) != len(cases):
            took = [False] * len(cases)
        for row, case, held in zip(rows, cases, took, strict=True):
            run.end(int(row), Deferred(case.id, case.reason) if held else Refused(Reason.UNAVAILABLE))

    def _case(self, run: _Run, batch: Batch, i: int, row: int) -> ReviewRequest:
        known = (batch.known(rung.name) for rung in self.rungs)
        view = next((Row(answer.outputs, i) for answer in known if answer is not None and answer.ok[i]), None)
        return ReviewRequest(
            id=batch.ids[i],
            principal=batch.principals[i],
            reason=run.reasons.get(row, Reason.UNAVAILABLE),
            inputs={name: a[i : i + 1] for name, a in batch.inputs.items()},
            findings=tuple(Findings(run.trail, row)),
            suggestion=run.suggestions.get(row, view),
        )


def _attempt(rung: str, answer: Forward) -> Assessment:
    """A rung's attempt as a line of the trail: no score, DEGRADE where it failed."""
    n = len(answer.ok)
    if answer.whole:
        return Assessment(rung, unscored(n), allowed(n), True, True, answer.elapsed_s)
    verdicts = np.where(answer.ok, np.int8(Verdict.ALLOW), np.int8(Verdict.DEGRADE))
    errors = {int(i): answer.error or "no answer" for i in np.flatnonzero(~answer.ok)}
    return Assessment(rung, unscored(n), verdicts, False, True, answer.elapsed_s, errors)
