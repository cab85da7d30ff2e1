"""The one executor: guards once, then down the rungs, then a person, then refusal.

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from gateway.batch import Answered, Batch, Forward, Model, Rows, bounded, now_s
from gateway.decision import (
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
from gateway.errors import StageFailure, StoreFailed
from gateway.stage import Assessment, FeatureStage, Stage

AnyGuard: TypeAlias = Stage[Batch] | FeatureStage


@dataclass(frozen=True, slots=True)
class Rung:
    """One model of the ladder and the checks that its answers must pass."""

    model: Model
    checks: tuple[Stage[Answered], ...] = ()

    @property
    def name(self) -> str:
        return self.model.name


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One row for a person: what was asked, why no model may answer, and what a model would have said."""

    id: str
    principal: str
    reason: Reason
    inputs: Tensors
    findings: tuple[Finding, ...]
    suggestion: Tensors | None


class Review(Protocol):
    async def put(self, cases: Sequence[Case], /) -> Sequence[bool]:
        """Takes cases durably, in order; False where there is no room. May raise."""
        ...


class _Run:
    """What is known so far of one batch, by row of that batch: its fall, its outcome, and why."""

    def __init__(self, batch: Batch) -> None:
        self.live = batch  # the rows that no guard has refused, with the forward passes computed for them
        self.rows: Rows = np.arange(len(batch))  # where the live rows stand in the batch
        self.fall = np.zeros(len(batch), np.int8)
        self.outcomes: dict[int, Outcome] = {}
        self.reasons: dict[int, Reason] = {}
        self.suggestions: dict[int, Tensors] = {}
        self.trail: list[tuple[Rows, Assessment]] = []

    def open_rows(self, deepest: Verdict) -> tuple[Batch, Rows]:
        """The rows without an outcome that have fallen no further than `deepest`, and where they stand."""
        at = [
            i
            for i, row in enumerate(self.rows)
            if int(row) not in self.outcomes and self.fall[row] <= deepest
        ]
        keep = np.array(at, np.intp)
        return self.live.take(keep), self.rows[keep]

    def join(self, rows: Rows, found: Assessment, reason: Reason) -> None:
        """Lets an enforced stage's verdicts lower the rows; the lowest verdict gives the reason."""
        self.trail.append((rows, found))
        if not found.enforced:
            return
        for at in np.flatnonzero(found.verdicts > self.fall[rows]):
            row = int(rows[at])
            self.fall[row] = found.verdicts[at]
            self.reasons[row] = Reason.UNAVAILABLE if int(at) in found.errors else reason

    def findings(self, row: int) -> tuple[Finding, ...]:
        return tuple(self._found(row))

    def _found(self, row: int) -> Iterator[Finding]:
        for rows, found in self.trail:
            at = int(np.searchsorted(rows, row))
            if at < len(rows) and rows[at] == row:
                yield found.finding(at)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Guards, rungs and review, compiled from one policy. Immutable; a reload builds another."""

    policy: str
    guards: tuple[AnyGuard, ...]
    rungs: tuple[Rung, ...]
    review: Review
    review_budget_s: float

    async def decide(self, batch: Batch) -> list[Decision]:
        """Exactly one decision a row, in order. Raises nothing but our own cancellation."""
        run = _Run(batch.asking({rung.name: rung.model for rung in self.rungs}))
        for late in np.flatnonzero(batch.deadlines_s <= now_s()):
            run.outcomes[int(late)] = Refused(Reason.DEADLINE)
        await self._judge(run)
        for depth, rung in enumerate(self.rungs):
            await self._try_rung(run, rung, depth)
        await self._defer(run)
        return [
            Decision(batch.ids[i], run.outcomes[i], run.findings(i), self.policy) for i in range(len(batch))
        ]

    async def _judge(self, run: _Run) -> None:
        """Runs every guard on every row that none has refused yet, and joins what they say."""
        for stage in self.guards:
            run.live, run.rows = run.open_rows(Verdict.REFUSE)
            if not run.rows.size:
                return
            found = await stage.assess(run.live, run.live.until_s)
            run.join(run.rows, found, stage.reason)
            for at in np.flatnonzero(run.fall[run.rows] == Verdict.REFUSE):
                row = int(run.rows[at])
                run.outcomes[row] = Refused(run.reasons[row], stage.retry_after_s(float(found.scores[at])))

    async def _try_rung(self, run: _Run, rung: Rung, depth: int) -> None:
        """Asks one rung for the rows that may have its answer; settles those that pass every check."""
        batch, rows = run.open_rows(Verdict.DEGRADE if depth else Verdict.ALLOW)
        if not rows.size:
            return
        answer = await batch.run(rung.name)
        run.trail.append((rows, _attempt(rung.name, answer)))
        alive = np.flatnonzero(answer.ok)
        for row in rows[~answer.ok]:
            run.reasons.setdefault(int(row), Reason.UNAVAILABLE)
        for check in rung.checks:
            if not alive.size:
                return
            found = await check.assess(Answered.of(batch, answer).take(alive), batch.until_s)
            run.trail.append((rows[alive], found))
            if found.enforced:
                for at in alive[found.verdicts > Verdict.ALLOW]:
                    run.reasons.setdefault(int(rows[at]), check.reason)
                    run.suggestions.setdefault(int(rows[at]), answer.row(int(at)))
                alive = alive[found.verdicts == Verdict.ALLOW]
        for at in alive:
            row, output = int(rows[at]), answer.row(int(at))
            if depth:
                run.outcomes[row] = Degraded(output, rung.name, run.reasons.get(row, Reason.UNAVAILABLE))
            else:
                run.outcomes[row] = Served(output, rung.name)

    async def _defer(self, run: _Run) -> None:
        """Hands what is still open to a person, in row order; refuses what the queue does not take."""
        batch, rows = run.open_rows(Verdict.DEFER)
        if not rows.size:
            return
        cases = [self._case(run, batch, i, int(row)) for i, row in enumerate(rows)]
        try:
            taken = await bounded(
                "review", lambda: self.review.put(cases), self.review_budget_s, batch.until_s, StoreFailed
            )
            took = [bool(one) for one in taken]
        except (StageFailure, TypeError, ValueError):
            took = []
        if len(took) != len(cases):
            took = [False] * len(cases)
        for row, case, held in zip(rows, cases, took, strict=True):
            run.outcomes[int(row)] = Deferred(case.id, case.reason) if held else Refused(Reason.UNAVAILABLE)

    def _case(self, run: _Run, batch: Batch, i: int, row: int) -> Case:
        known = (batch.known(rung.name) for rung in self.rungs)
        view = next((answer.row(i) for answer in known if answer is not None and answer.ok[i]), None)
        return Case(
            id=batch.ids[i],
            principal=batch.principals[i],
            reason=run.reasons.get(row, Reason.UNAVAILABLE),
            inputs={name: a[i : i + 1] for name, a in batch.inputs.items()},
            findings=run.findings(row),
            suggestion=run.suggestions.get(row, view),
        )


def _attempt(rung: str, answer: Forward) -> Assessment:
    """A rung's attempt as a line of the trail: no score, DEGRADE where it failed."""
    verdicts = np.where(answer.ok, np.int8(Verdict.ALLOW), np.int8(Verdict.DEGRADE))
    errors = {int(i): answer.error or "no answer" for i in np.flatnonzero(~answer.ok)}
    return Assessment(rung, np.full(len(verdicts), np.nan), verdicts, True, answer.elapsed_s, errors)
