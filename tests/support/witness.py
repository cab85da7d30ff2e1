"""What a calibrated deployment really does to a population, served in process, beside what it promises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fallbacks.breaker import Breaker
from gateway.core.assessment import Findings, Trail
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Degraded, Served, Tensors
from gateway.core.model import Predictor
from gateway.deployment.certificate import Certificate, FalseAlarm
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.slices import slice_names
from gateway.policy.schema import Policy
from gateway.serving.gateway import Gateway
from tests.support.deployments import opened, predictor_of, swap
from tests.support.population import Truth

Array = NDArray[Any]
BATCH_ROWS = 1024
DUE_S = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Where each row ended. by: the rung that answered, -1 for none; stopped: by an enforced guard."""

    by: Array
    predicted: Array
    stopped: Array


@dataclass(frozen=True)
class Measured:
    """One promise and what became of it.

    rows: how many rows the measured share is of, 0 for the exact one; joint: of how many statements that are
    promised together this is the worst.
    """

    kind: str
    promised: float
    share: float
    rows: int
    joint: int = 1

    def broken(self, level: float) -> bool:
        """Whether the true share is above the promise: for sure if exact, else at this level of error."""
        if not self.rows:
            return self.share > self.promised + 1e-12
        wrong = round(self.share * self.rows)
        return bool(binomtest(wrong, self.rows, self.promised, "greater").pvalue <= level / self.joint)


def ends_of(decisions: list[Decision], policy: Policy) -> Ends:
    """The ends of the rows of one pass."""
    depth_of = {rung.name: depth for depth, rung in enumerate(policy.rungs)}
    guards = {guard.name for guard in policy.guards}
    by, predicted = np.full(len(decisions), -1), np.full(len(decisions), -1)
    stopped = np.zeros(len(decisions), bool)
    for i, decision in enumerate(decisions):
        if isinstance(decision.outcome, Served | Degraded):
            by[i] = depth_of[decision.outcome.by]
            predicted[i] = decision.outcome.output["probabilities"].argmax()
    for rows, found in _trail(decisions):
        if found.stage in guards and found.enforced:
            stopped[[row for row, v in zip(rows, found.verdicts, strict=True) if v]] = True
            stopped[[rows[at] for at in found.errors]] = False  # the verdict that is assumed is no alarm
    return Ends(by, predicted, stopped)


def _trail(decisions: list[Decision]) -> Trail:
    """What every stage found for the rows of one pass."""
    findings = [decision.findings for decision in decisions]
    assert all(isinstance(one, Findings) for one in findings)
    trails = {id(one.trail): one.trail for one in findings if isinstance(one, Findings)}
    (trail,) = trails.values()
    return trail


async def decided(gateway: Gateway, x: Any, batch_rows: int = BATCH_ROWS) -> Ends:
    """The ends of rows that the gateway decides, `batch_rows` at a time."""
    n, found = len(next(iter(x.values()))), []
    for at in range(0, n, batch_rows):
        part = {name: array[at : at + batch_rows] for name, array in x.items()}
        ids = tuple(f"{at + i}" for i in range(len(next(iter(part.values())))))
        batch = Batch(ids, ("t",) * len(ids), part, (now_s() + DUE_S,) * len(ids))
        found.append(ends_of(await gateway.decide(batch), gateway.loaded.policy))
    return Ends(*(np.concatenate([getattr(one, name) for one in found]) for name in Ends.__slots__))


def served(folder: Path, x: Any, gone: int = 0, batch_rows: int = BATCH_ROWS) -> Ends:
    """The ends of rows while the first `gone` rungs fail."""
    return asyncio.run(_served(folder, x, range(gone, gone + 1), batch_rows))[0]


def served_while_gone(folder: Path, x: Any, most: int, edited: Certificate | None = None) -> list[Ends]:
    """The ends with no rung gone, with the first one gone, and so on.

    edited: a certificate to serve with instead of the folder's, which a load would refuse.
    """
    return asyncio.run(_served(folder, x, range(most + 1), BATCH_ROWS, edited))


async def _served(
    folder: Path, x: Any, gone: range, batch_rows: int, edited: Certificate | None = None
) -> list[Ends]:
    found = []
    async with opened(folder) as gateway:
        if edited is not None:
            _compile_with(gateway, edited)
        for failing in range(gone[0]):
            swap(gateway, Nan(predictor_of(gateway, failing)), failing)
        for most in gone:
            if most:
                swap(gateway, Nan(predictor_of(gateway, most - 1)), most - 1)
            found.append(await decided(gateway, x, batch_rows))
    return found


def _compile_with(gateway: Gateway, edited: Certificate) -> None:
    """Puts another certificate in force."""
    old, breakers = gateway.loaded, dict[str, Breaker]()
    artifacts = replace(old.artifacts, certificate=edited)
    stores = Stores(gateway.review, gateway.callers.rate_of, breakers)
    pipeline = compile_policy(old.policy, artifacts, stores)
    gateway.loaded = replace(old, artifacts=artifacts, pipeline=pipeline, breakers=breakers)


@dataclass(frozen=True)
class Nan:
    """A model that answers, but no number."""

    inner: Predictor

    async def predict(self, inputs: Tensors, /) -> Tensors:
        outputs = await self.inner.predict(inputs)
        return {name: np.full_like(array, np.nan) for name, array in outputs.items()}


def measure(
    certificate: Certificate, policy: Policy, truth: Truth, answer: Tensors, ends: list[Ends]
) -> Iterator[Measured]:
    """Every printed promise with its true share.

    answer: the primary's outputs for the rows of the truth; ends[d]: with the first d rungs gone.
    """
    for kind, alarm, found in (
        ("false_alarm", certificate.false_alarm, ends[0]),
        ("without_features", certificate.without_features, ends[1]),
    ):
        if alarm is not None and alarm.promised:
            yield _share(kind, alarm.budget, truth, np.ones(len(truth), bool), found.stopped)
            if alarm.slices and policy.false_alarm_by is not None:
                names = slice_names(policy.false_alarm_by, truth.x, answer)
                yield _worst_slice(kind, alarm, names, truth, found.stopped)
    wrong = [1 - np.where(one.predicted >= 0, _chance(truth, one.predicted), 1.0) for one in ends]
    for depth, rung in enumerate(policy.rungs):
        if rung.name in certificate.selective:
            promised = certificate.selective[rung.name].risk
            yield _share(f"selective {rung.name}", promised, truth, ends[depth].by == depth, wrong[depth])
    if certificate.answered is not None:
        yield _share("answered", certificate.answered.risk, truth, ends[0].by >= 0, wrong[0])


def _chance(truth: Truth, predicted: Array) -> Array:
    return np.take_along_axis(truth.labels, np.maximum(predicted, 0)[:, None], 1)[:, 0]


def _share(kind: str, promised: float, truth: Truth, of: Array, amount: Array) -> Measured:
    weight = truth.weight * of
    total = float(weight.sum())
    share = float(weight @ amount) / total if total else 0.0
    return Measured(kind, promised, share, 0 if truth.exact else int(of.sum()))


def _worst_slice(kind: str, alarm: FalseAlarm, names: Array, truth: Truth, stopped: Array) -> Measured:
    """The slice that is stopped most often: all of them are promised together."""
    own = [value for one in alarm.slices for value in one.values]
    each = [
        _share(f"{kind} by slice", alarm.budget, truth, rows, stopped)
        for one in alarm.slices
        for rows in (np.isin(names, one.values) if one.values else ~np.isin(names, own),)
    ]
    return replace(max(each, key=lambda one: one.share), joint=len(each))
