"""Parts that do at each step of a pipeline what an edge of its decision graph says, on a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fallbacks.breaker import BreakerState, CircuitOpen
from gateway.core.batch import Answered, Batch
from gateway.core.batch_size import BatchSize
from gateway.core.batching import Batcher
from gateway.core.budget import admit
from gateway.core.deadline import now_s
from gateway.core.decision import Outcome, Reason, Refused, Tensors, Verdict
from gateway.core.decision_graph import DecisionGraph, Edge, Event, Path
from gateway.core.model import InputFaults, Model
from gateway.core.pipeline import AnyGuard, Pipeline, ReviewRequest, Rung
from gateway.core.row_limit import RowLimit
from gateway.core.rows import F8
from gateway.core.stage import FeatureStage, Stage
from tests.support.core_parts import Unfit, run

CUTS = {Verdict.DEGRADE: 1.0, Verdict.DEFER: 2.0, Verdict.REFUSE: 3.0}
BUDGET_S, DEADLINE_S = 1.0, 100.0
SCORES = {Verdict.ALLOW: 0.0} | CUTS


@dataclass
class Script:
    """What each part does, by the name of its step. A part that no path asks is not there."""

    edges: Mapping[str, Edge] = field(default_factory=dict)

    async def play(self, name: str) -> Edge:
        """Raises or hangs where the edge says so."""
        edge = self.edges[name]
        match edge.event:
            case Event.ERROR:
                raise ValueError("broken on purpose")
            case Event.TIMEOUT | Event.DEADLINE:
                await asyncio.sleep(3600)
            case Event.OPEN:
                raise CircuitOpen(BreakerState.OPEN, 5.0)
            case Event.INVALID:
                raise Unfit
            case _:
                return edge
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class ScriptedGuard:
    """A guard, an input-only form or a check. scores: one that gets each verdict."""

    name: str
    script: Script
    scores: Mapping[Verdict, float] = field(default_factory=lambda: SCORES)

    async def score(self, rows: Batch | Answered, /) -> F8:
        verdict = (await self.script.play(self.name)).verdict
        assert verdict is not None
        return np.full(len(rows), self.scores[verdict])


@dataclass(frozen=True)
class ScriptedModel:
    """A model that may refuse a row as unfit."""

    name: str
    script: Script

    async def predict(self, inputs: Tensors, /) -> Tensors:
        await self.script.play(self.name)
        return {"y": inputs["x"]}

    @property
    def faults(self) -> InputFaults:
        return InputFaults(Unfit, RuntimeError, asyncio.Event().wait)  # type: ignore[arg-type] # never asked


@dataclass(frozen=True)
class ScriptedBudget:
    """A budget that is within, over, or broken."""

    name: str
    script: Script

    def charge(self, principal: str, rows: int, /) -> list[float]:
        event = self.script.edges[self.name].event
        if event is Event.ERROR:
            raise ValueError("broken on purpose")
        return [2.0 if event is Event.FLAGGED else 0.0] * rows


@dataclass(frozen=True)
class ScriptedReview:
    """A queue that stores, has no room, or none for this caller."""

    script: Script

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool | Refused]:
        event = (await self.script.play("review")).event
        over = Refused(Reason.RATE_LIMITED, 60.0)
        return [over if event is Event.OVER_QUOTA else event is Event.OK] * len(cases)


def scripted_like(pipeline: Pipeline, script: Script) -> Pipeline:
    """The pipeline with scripted parts in place of its own. Cuts, `on_error` and what is enforced stay."""
    rungs = [
        Rung(_model(rung.model, script), tuple(_stage(check, script) for check in rung.checks))
        for rung in pipeline.rungs
    ]
    return replace(
        pipeline,
        guards=tuple(_guard(guard, script) for guard in pipeline.guards),
        rungs=tuple(rungs),
        review=None if pipeline.review is None else ScriptedReview(script),
        review_budget_s=BUDGET_S,
        budgets=tuple(replace(one, budget=ScriptedBudget(one.name, script)) for one in pipeline.budgets),
    )


def _stage(stage: Stage[Any], script: Script) -> Stage[Any]:
    scores = {Verdict.ALLOW: 0.0} | dict(stage.cuts)
    return replace(stage, guard=ScriptedGuard(stage.name, script, scores), budget_s=BUDGET_S)


def _guard(guard: AnyGuard, script: Script) -> AnyGuard:
    if isinstance(guard, Stage):
        return _stage(guard, script)
    form = guard.without_features
    alone = _stage(form, script) if isinstance(form, Stage) else form
    return FeatureStage(_stage(guard.full, script), guard.model, alone)


def _model(model: Model, script: Script) -> Model:
    predictor = ScriptedModel(model.name, script)
    return Model(model.name, predictor, BUDGET_S, {"y": ()}, predictor.faults)


def outcome_of(pipeline: Pipeline, script: Script, graph: DecisionGraph, path: Path) -> Outcome:
    """How a row really ends of which every step does what the path says."""
    script.edges = {graph.step(at).name: edge for at, edge in path}
    return run(lambda: _decided(pipeline, script.edges, late=path[-1][1].event is Event.DEADLINE))


async def _decided(pipeline: Pipeline, edges: Mapping[str, Edge], *, late: bool) -> Outcome:
    """As `Gateway.decide`: charged, then batched. late: the row's deadline comes before any budget's end."""
    queue = edges.get("queue")
    due_s = 0.0 if queue and queue.event is Event.DEADLINE else BUDGET_S / 2 if late else DEADLINE_S
    batch = Batch(("r",), ("caller",), {"x": np.zeros(1)}, (now_s() + due_s,))
    if (admission := admit(pipeline.budgets, batch, pipeline.policy)) is not None:
        (decision,) = admission.decisions
        assert decision is not None
        return decision.outcome
    room = 0 if queue and queue.event is Event.SHED else 8
    size = BatchSize(8)
    batcher = Batcher(pipeline.answer, lambda ids: None, RowLimit(DEADLINE_S, size), size, room)
    (decided,) = await batcher.decide(batch)
    await batcher.drain()
    return decided.outcome
