"""A deployment's real pipeline, loaded into this process to be measured; its folder is only read.

Three things differ from a gateway that serves, and none of them judges a row. Every row is a caller of its
own with no rate limit, the review queue takes every case, and every part has a minute: quality must not
depend on how busy this machine is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.served import with_long_budgets
from gateway.cli.samples import Rows
from gateway.core.batch import Batch
from gateway.core.decision import Decision, Degraded, Finding, Served, Tensors, Verdict
from gateway.core.pipeline import Pipeline, ReviewRequest, Rung
from gateway.core.rows import F8
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.ood import FittedOod
from gateway.policy.schema import Policy
from gateway.protocol.endings import ending_of
from guards.confidence import uncertainty

MAX_ROWS = 128
DEADLINE_S = 3600.0
OUTPUT = "probabilities"
BASELINE, JOINT, INPUT_ONLY = "msp", "joint", "input_only"


class _UnlimitedReview:
    """A review queue with room for every case."""

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        return [True] * len(cases)


class _FailingModel:
    """A model that always fails."""

    async def predict(self, inputs: Tensors, /) -> Tensors:
        raise RuntimeError("broken on purpose")


@dataclass(frozen=True, slots=True)
class RowOutcomes:
    """How n rows ended. label: -1 where no model answered; by: which model did.

    stopped: an enforced guard gave a score that reached its cut, which is what the certificate bounds. Where
    a guard could not judge (perturbation, while the primary fails), `faults` counts that instead.
    """

    outcome: NDArray[np.str_]
    by: NDArray[np.str_]
    label: NDArray[np.int64]
    stopped: NDArray[np.bool_]
    faults: int

    @property
    def answered(self) -> NDArray[np.bool_]:
        return np.asarray(self.label >= 0, np.bool_)

    def wrong(self, y: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self.answered & (self.label != y), np.bool_)


@dataclass(frozen=True, slots=True)
class DeploymentUnderTest:
    """`pipeline` as it serves, and `broken`: the same without its primary."""

    policy: Policy
    artifacts: Artifacts
    pipeline: Pipeline
    broken: Pipeline

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Loads, verifies and compiles. Raises PolicyError or ArtifactError, as a gateway would at start."""
        deployment = Deployment.read(folder)
        policy = deployment.policy
        with TemporaryDirectory() as state:
            artifacts = load_artifacts(deployment, Path(state))
        stores = Stores(_UnlimitedReview(), lambda principal: math.inf, {})
        pipeline = compile_policy(with_long_budgets(policy), artifacts, stores)
        first, *others = pipeline.rungs
        failing = Rung(replace(first.model, predictor=_FailingModel()), first.checks)
        return cls(policy, artifacts, pipeline, replace(pipeline, rungs=(failing, *others)))

    @property
    def primary(self) -> str:
        return self.policy.rungs[0].name

    @property
    def calibrated(self) -> list[str]:
        """The guards whose cut is the certificate's."""
        return [guard.name for guard in self.pipeline.guards if isinstance(guard, FeatureStage)]

    @property
    def source(self) -> str:
        """The input that detectors read, and the only one that samples fill."""
        return self.artifacts.models[self.primary].inputs[0].name

    async def decide(self, x: Rows, *, broken: bool = False) -> RowOutcomes:
        """The outcome of each row, in batches of 128."""
        decisions: list[Decision] = []
        for batch in self._batches(x):
            decisions += await (self.broken if broken else self.pipeline).decide(batch)
        guards = {guard.name for guard in self.pipeline.guards}
        found = [[f for f in d.findings if f.stage in guards] for d in decisions]
        ends = [ending_of(d.outcome) for d in decisions]
        return RowOutcomes(
            np.array([end.outcome for end in ends]),
            np.array([end.by for end in ends]),
            np.array([_label(d) for d in decisions], np.int64),
            np.array([any(_stops(f) for f in row) for row in found]),
            sum(f.error is not None for row in found for f in row),
        )

    async def score(self, x: Rows) -> dict[str, F8]:
        """Every calibrated guard's rarity, each detector alone, and the uncertainty of the primary, by name.

        `joint` is the risk that the certificate bounds, over all guards; `input_only` the same while the
        primary is gone.
        """
        models = {rung.name: rung.model for rung in self.pipeline.rungs}
        parts = [await self._score(batch.with_models(models)) for batch in self._batches(x)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def _score(self, batch: Batch) -> dict[str, F8]:
        answer = await batch.forward(self.primary)
        s = self.artifacts.fitted.view.signals(batch.inputs, answer)
        scores = {BASELINE: uncertainty(answer[OUTPUT])}
        stages = [guard for guard in self.pipeline.guards if isinstance(guard, FeatureStage)]
        for stage in stages:
            fitted = self.artifacts.fitted.guards[stage.name]
            detectors = fitted.full.detectors if isinstance(fitted, FittedOod) else ()
            scores |= {_kind(one.kind): one.score(s) for one in detectors}
            scores[stage.name] = await stage.full.guard.score(batch)
        input_only = [
            await s.without_features.guard.score(batch)
            for s in stages
            if isinstance(s.without_features, Stage)
        ]
        joint = [scores[stage.name] + self._offset(stage) for stage in stages]
        for name, risks in ((JOINT, joint), (INPUT_ONLY, input_only)):
            if risks:
                scores[name] = np.max(risks, axis=0)
        return scores

    def _offset(self, stage: FeatureStage) -> float:
        """From a guard's own scale to the joint one, on which the certified cut is the same for all."""
        certified = self.artifacts.certificate.false_alarm
        return certified.cut - min(stage.full.cuts.values()) if certified else 0.0

    def _batches(self, x: Rows) -> Iterator[Batch]:
        until_s = asyncio.get_running_loop().time() + DEADLINE_S
        for at in range(0, len(x), MAX_ROWS):
            rows = x[at : at + MAX_ROWS]
            ids = tuple(f"bench-{at + i}" for i in range(len(rows)))
            yield Batch(ids, ids, {self.source: rows}, (until_s,) * len(rows))


def _stops(found: Finding) -> bool:
    return found.enforced and found.error is None and found.verdict > Verdict.ALLOW


def _kind(kind: str) -> str:
    """The detector's name in the policy: `raw`, whatever the input."""
    return kind.partition("_")[0]


def _label(decision: Decision) -> int:
    match decision.outcome:
        case Served(output=output) | Degraded(output=output):
            return int(output[OUTPUT].argmax())
        case _:
            return -1
