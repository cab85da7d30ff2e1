"""The decision graph of a pipeline: its steps in order, and where every event at each of them leads.

    budgets ──> queue ──> guards ──> rung 0 ──> checks ──> rung 1 ──> checks ──> ... ──> review

The pass of the first rung's model stands before the first guard that reads it, where it is asked, and after
the guards if none does. `Pipeline` runs the same steps; `tests/core/test_graph_is_run.py` drives it down
every path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from gateway.core.decision import Reason, Refused
from gateway.core.decision_graph import (
    DecisionGraph,
    Edge,
    Event,
    Position,
    PrimaryPass,
    RowState,
    Step,
    StepKind,
    Target,
)
from gateway.core.pipeline import AnyGuard, Pipeline, is_enforced
from gateway.core.stage import FeatureStage
from gateway.core.step_edges import (
    Move,
    budget_moves,
    check_moves,
    guard_moves,
    left,
    primary_moves,
    queue_moves,
    review_moves,
    rung_moves,
)
from gateway.core.transitions import answered, unreviewed, worst_answered

Moves: TypeAlias = Callable[[RowState], Iterable[Move]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A step with its moves. depth: its rung, -1 before the ladder."""

    step: Step
    moves: Moves
    depth: int = -1


def decision_graph(pipeline: Pipeline) -> DecisionGraph:
    """Every path of a row through a pipeline.

    Cost:    a few ms; the positions are at most steps x verdicts x reasons x 4.
    """
    layout = _Layout(pipeline, tuple(_parts(pipeline)))
    start = Position(0, RowState())
    edges: dict[Position, tuple[Edge, ...]] = {}
    found = [start]
    for at in found:  # it grows meanwhile: the nearest first, and of these what is as it should be
        if at not in edges:
            edges[at] = tuple(layout.edges(at))
            found += [edge.target for edge in edges[at] if isinstance(edge.target, Position)]
    return DecisionGraph(tuple(part.step for part in layout.parts), start, edges)


def _parts(pipeline: Pipeline) -> Iterator[_Part]:
    for budget in pipeline.budgets:
        step = Step(budget.name, StepKind.BUDGET, 0.0, budget.enforce)
        yield _Part(step, partial(budget_moves, budget))
    yield _Part(Step("queue", StepKind.QUEUE, 0.0), queue_moves)
    yield from _guards_and_primary(pipeline)
    for depth, rung in enumerate(pipeline.rungs):
        if depth:
            step = Step(rung.name, StepKind.MODEL, rung.model.budget_s)
            yield _Part(step, partial(rung_moves, rung.model), depth)
        for check in rung.checks:
            step = Step(check.name, StepKind.CHECK, check.budget_s, check.enforce)
            yield _Part(step, partial(check_moves, check), depth)
    if pipeline.review is not None:
        step = Step("review", StepKind.REVIEW, pipeline.review_budget_s)
        yield _Part(step, review_moves, len(pipeline.rungs))


def _guards_and_primary(pipeline: Pipeline) -> Iterator[_Part]:
    """The guards in order, with the pass of the first rung's model before the first that reads it."""
    model = pipeline.rungs[0].model
    step = Step(model.name, StepKind.MODEL, model.budget_s)
    primary = _Part(step, partial(primary_moves, model))
    reading = [isinstance(guard, FeatureStage) for guard in pipeline.guards]
    first = reading.index(True) if any(reading) else len(reading)
    yield from (_guard(guard) for guard in pipeline.guards[:first])
    yield primary
    yield from (_guard(guard) for guard in pipeline.guards[first:])


def _guard(guard: AnyGuard) -> _Part:
    budget_s = guard.full.budget_s if isinstance(guard, FeatureStage) else guard.budget_s
    step = Step(guard.name, StepKind.GUARD, budget_s, is_enforced(guard))
    return _Part(step, partial(guard_moves, guard))


@dataclass(frozen=True, slots=True)
class _Layout:
    """The parts of a pipeline in order, and what comes after each."""

    pipeline: Pipeline
    parts: tuple[_Part, ...]

    def edges(self, at: Position) -> Iterator[Edge]:
        part = self.parts[at.step]
        waits = part.step.kind is not StepKind.BUDGET
        for move in part.moves(at.row):
            waits = waits and move.event is not Event.NO_ANSWER
            yield Edge(move.event, self._after(at.step, move), move.verdict)
        if waits:
            yield Edge(Event.DEADLINE, Refused(Reason.DEADLINE))

    def _after(self, at: int, move: Move) -> Target:
        if not isinstance(move.after, RowState):
            return move.after
        depth, row = self.parts[at].depth, move.after
        if move.leaves:
            return self._enter(depth + 1, row)
        if depth >= 0:
            return self._next_check(at + 1, depth, row)
        if at + 1 < len(self.parts) and self.parts[at + 1].depth < 0:
            return Position(at + 1, row)
        if row.primary is PrimaryPass.INVALID:
            return Refused(Reason.INVALID)
        return self._enter(0, row)

    def _enter(self, depth: int, row: RowState) -> Target:
        """A row that may have the answer of this rung, or of a later one; else it needs review."""
        settled = row._replace(primary=None)
        first = next((i for i, part in enumerate(self.parts) if part.depth >= depth), len(self.parts))
        if depth == len(self.pipeline.rungs):
            return unreviewed(row.reason) if self.pipeline.review is None else Position(first, settled)
        if row.verdict > worst_answered(depth):
            return self._enter(depth + 1, row)
        if depth:
            return Position(first, settled)
        if row.primary is PrimaryPass.FAILED:
            return self._enter(1, left(row, Reason.UNAVAILABLE))
        return self._next_check(first, 0, settled)

    def _next_check(self, at: int, depth: int, row: RowState) -> Target:
        """The next check of this rung, or the end of a row that all of them allow."""
        if at < len(self.parts) and self.parts[at].depth == depth:
            return Position(at, row)
        return answered(depth, self.pipeline.rungs[depth].name, {}, row.reason)
