"""Where held-out rows end when the compiled pipeline decides them, with every model and without the primary.

The certificate's counts are taken from here: what is certified is what is served. Every part has a minute,
so that the counts do not depend on how busy this machine is, and models are asked without circuit breakers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.folds import ask
from gateway.calibration.judge import BATCH_ROWS
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Degraded, Outcome, Refused, Served, Tensors
from gateway.core.pipeline import Pipeline, ReviewRequest, Rung
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certification.paths import NO_RUNG, RungIndex
from gateway.deployment.compile import Stores, compile_policy
from gateway.policy.kinds import AnyBudget
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy

T = TypeVar("T")
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


class _AcceptingReview:
    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool | Refused]:
        return [True] * len(cases)


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
    pipeline = _compiled(policy, artifacts)
    models = [artifacts.models[rung.name] for rung in policy.rungs]
    depth_of = {rung.name: depth for depth, rung in enumerate(policy.rungs)}

    async def answered_by(gone: int) -> RungIndex:
        decisions = await _decide(_without(pipeline, models, gone), rows.x)
        return np.array([_rung_of(one.outcome, depth_of) for one in decisions], np.int64)

    return ServedRows(tuple(_on_a_loop(partial(answered_by, d)) for d in range(len(models))))


def decide_rows(policy: Policy, artifacts: Artifacts, parts: Sequence[Tensors]) -> list[list[Decision]]:
    """The decisions on rows of each part, while every model works; a queue of the policy takes every row.

    Raises:  ArtifactError as `compile_policy`.
    Cost:    that of serving the rows.
    """
    models = [artifacts.models[rung.name] for rung in policy.rungs]
    review = None if policy.review is None else _AcceptingReview()
    pipeline = replace(_without(_compiled(policy, artifacts), models, 0), review=review)
    return [_on_a_loop(partial(_decide, pipeline, x)) for x in parts]


def _compiled(policy: Policy, artifacts: Artifacts) -> Pipeline:
    """The pipeline in force without budgets, whose prices may not be fitted yet."""
    enforced = with_long_budgets(policy)
    guards = [guard for guard in enforced.guards if not isinstance(guard, AnyBudget)]
    enforced = enforced.model_copy(update={"mode": "enforce", "guards": guards})
    return compile_policy(enforced, artifacts, Stores(None, lambda principal: None, {}))


def _on_a_loop(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result, on a loop of its own: the caller may have one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(ask())).result()


def _without(pipeline: Pipeline, models: Sequence[LoadedModel], gone: int) -> Pipeline:
    """The pipeline with the first rungs gone, and each row judged by itself.

    It remembers no query.
    """
    rungs = tuple(
        Rung(replace(rung.model, predictor=_Gone() if depth < gone else _Asked(model)), rung.checks)
        for depth, (rung, model) in enumerate(zip(pipeline.rungs, models, strict=True))
    )
    histories = {recall.guard for recall in pipeline.recalls}
    guards = tuple(guard for guard in pipeline.guards if guard.name not in histories)
    return replace(pipeline, guards=guards, rungs=rungs, recalls=())


async def _decide(pipeline: Pipeline, x: Tensors) -> list[Decision]:
    found: list[Decision] = []
    for batch in _batches(x):
        found += await pipeline.decide(batch)
    return found


def _rung_of(outcome: Outcome, depth_of: Mapping[str, int]) -> int:
    match outcome:
        case Served(by=by) | Degraded(by=by):
            return depth_of[by]
        case _:
            return NO_RUNG


def _batches(x: Tensors) -> Iterator[Batch]:
    for first in range(0, len(next(iter(x.values()))), BATCH_ROWS):
        inputs = {name: array[first : first + BATCH_ROWS] for name, array in x.items()}
        n = len(next(iter(inputs.values())))
        ids = tuple(f"row-{first + i}" for i in range(n))
        yield Batch(ids, ids, inputs, (now_s() + DEADLINE_S,) * n)


def with_long_budgets(policy: Policy) -> Policy:
    """The same policy with a minute for every part."""

    def longer(part: Any) -> Any:
        return part.model_copy(update={"budget_s": BUDGET_S})

    rungs = [longer(rung).model_copy(update={"checks": [*map(longer, rung.checks)]}) for rung in policy.rungs]
    return policy.model_copy(update={"guards": [*map(longer, policy.guards)], "rungs": rungs})
