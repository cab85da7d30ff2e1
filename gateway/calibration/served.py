"""Where held-out rows end when the compiled pipeline decides them, with every model and without the primary.

The certificate's counts are taken from here: what is certified is what is served. Every part has a minute,
so that the counts do not depend on how busy this machine is, and models are asked without circuit breakers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.folds import ask
from gateway.calibration.judge import BATCH_ROWS
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Degraded, Outcome, Served, Tensors
from gateway.core.pipeline import Pipeline, Rung
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certification.paths import NO_RUNG, RungIndex
from gateway.deployment.compile import Stores, compile_policy
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy

BUDGET_S, DEADLINE_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A loaded model without its threads, so that no connection is bound to the loop of this run."""

    model: LoadedModel

    async def predict(self, inputs: Tensors, /) -> Tensors:
        return ask(self.model, inputs)


class _Gone:
    async def predict(self, inputs: Tensors, /) -> Tensors:
        raise ConnectionError("gone, to see what is answered without it")


@dataclass(frozen=True, slots=True)
class ServedRows:
    """Which rung answers each row, `NO_RUNG` where none does: int64[n] each.

    while_gone[d]: with the first d rungs gone; while_gone[0]: every model works.
    """

    while_gone: tuple[RungIndex, ...]


def serve(policy: Policy, artifacts: Artifacts, rows: CalibrationRows) -> ServedRows:
    """Decides the rows once for each number of rungs that are gone.

    Raises:  ArtifactError as `compile_policy`.
    Cost:    that of serving the rows, as many times as there are rungs.
    """
    enforced = with_long_budgets(policy).model_copy(update={"mode": "enforce"})
    pipeline = compile_policy(enforced, artifacts, Stores(None, lambda principal: None, {}))
    models = [artifacts.models[rung.name] for rung in policy.rungs]

    async def decide_all() -> ServedRows:
        return ServedRows(
            tuple([await _decide(_without(pipeline, models, d), rows) for d in range(len(models))])
        )

    with ThreadPoolExecutor(1) as thread:  # the caller may have a loop of its own
        return thread.submit(asyncio.run, decide_all()).result()


def _without(pipeline: Pipeline, models: Sequence[LoadedModel], gone: int) -> Pipeline:
    """The pipeline with the first rungs gone, and each row judged by itself.

    It charges no budget (`Pipeline.decide` does not), and remembers no query.
    """
    rungs = tuple(
        Rung(replace(rung.model, predictor=_Gone() if depth < gone else _Asked(model)), rung.checks)
        for depth, (rung, model) in enumerate(zip(pipeline.rungs, models, strict=True))
    )
    histories = {recall.guard for recall in pipeline.recalls}
    guards = tuple(guard for guard in pipeline.guards if guard.name not in histories)
    return replace(pipeline, guards=guards, rungs=rungs, recalls=())


async def _decide(pipeline: Pipeline, rows: CalibrationRows) -> RungIndex:
    depth_of = {rung.name: depth for depth, rung in enumerate(pipeline.rungs)}
    found: list[int] = []
    for batch in _batches(rows):
        found += [_rung_of(decision.outcome, depth_of) for decision in await pipeline.decide(batch)]
    return np.array(found, np.int64)


def _rung_of(outcome: Outcome, depth_of: Mapping[str, int]) -> int:
    match outcome:
        case Served(by=by) | Degraded(by=by):
            return depth_of[by]
        case _:
            return NO_RUNG


def _batches(rows: CalibrationRows) -> Iterator[Batch]:
    for first in range(0, len(rows), BATCH_ROWS):
        inputs = {name: array[first : first + BATCH_ROWS] for name, array in rows.x.items()}
        ids = tuple(f"row-{first + i}" for i in range(min(BATCH_ROWS, len(rows) - first)))
        yield Batch(ids, ids, inputs, (now_s() + DEADLINE_S,) * len(ids))


def with_long_budgets(policy: Policy) -> Policy:
    """The same policy with a minute for every part."""

    def longer(part: Any) -> Any:
        return part.model_copy(update={"budget_s": BUDGET_S})

    rungs = [longer(rung).model_copy(update={"checks": [*map(longer, rung.checks)]}) for rung in policy.rungs]
    return policy.model_copy(update={"guards": [*map(longer, policy.guards)], "rungs": rungs})
