"""From policy and artifacts to a pipeline: a closed union and `match`, no registry."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from fallbacks.breaker import Breaker
from gateway.core.batch import Answered, Batch
from gateway.core.decision import Reason, Verdict
from gateway.core.errors import ArtifactError, Problem
from gateway.core.model import Model
from gateway.core.pipeline import AnyGuard, Pipeline, Review, Rung
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.artifacts import Artifacts, input_only
from gateway.deployment.certificate import CERTIFICATE_FILE, GUARDS_FILE, FalseAlarm
from gateway.deployment.measures import Column, Measures, measures, span
from gateway.policy.schema import (
    ConfidencePolicy,
    GuardPolicy,
    OodPolicy,
    Policy,
    RatePolicy,
    RungPolicy,
    SqueezePolicy,
)
from guards.confidence import Confidence
from guards.rate import RateGuard
from guards.squeeze import SqueezeGuard

VERDICTS = {verdict.name.lower(): verdict for verdict in Verdict}
FAILURES_TO_OPEN, RESET_S = 5, 5.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What outlives a pipeline: where people answer, the breakers of the rungs, and what rates keys state."""

    review: Review
    rate_of: Callable[[str], float | None]
    breakers: dict[str, Breaker]


def compile_policy(policy: Policy, artifacts: Artifacts, stores: Stores) -> Pipeline:
    """The pipeline that the policy describes. Raises ArtifactError if a cut or an output is missing."""
    measured = measures_of(artifacts)
    return Pipeline(
        policy=artifacts.tag,
        guards=tuple(_guard(guard, policy, artifacts, stores, measured) for guard in policy.guards),
        rungs=tuple(_rung(rung, policy, artifacts, stores) for rung in policy.rungs),
        review=stores.review,
        review_budget_s=policy.review.budget_s if policy.review else 0.001,
    )


def _guard(
    guard: GuardPolicy, policy: Policy, artifacts: Artifacts, stores: Stores, measured: Measures
) -> AnyGuard:
    enforce = guard.enforce and policy.mode == "enforce"
    certificate, primary = artifacts.certificate, policy.rungs[0].name
    on_error, budget_s = VERDICTS[guard.on_error], guard.budget_s
    match guard:
        case RatePolicy(per_s=per_s, burst=burst):
            rate = RateGuard(per_s, burst, time.monotonic, stores.rate_of)
            cuts = {Verdict.REFUSE: guard.cuts["refuse"]}
            reason, fades_s = Reason.RATE_LIMITED, burst / per_s
            return Stage(guard.name, rate, cuts, reason, budget_s, on_error, enforce, fades_s)
        case OodPolicy(name=name):
            certified = _cuts(guard, certificate.false_alarm, guard.share)
            column = Column(measured.full, measured.columns[name])
            full: Stage[Batch] = Stage(name, column, certified, Reason.ABSTAINED, budget_s, on_error, enforce)
            if guard.without_features == "defer":
                return FeatureStage(full, primary, Verdict.DEFER, measured.ahead)
            alone = Column(measured.without_features, measured.columns[input_only(name)])
            cuts = _cuts(guard, certificate.without_features, 1.0)
            return FeatureStage(full, primary, replace(full, guard=alone, cuts=cuts), measured.ahead)
        case SqueezePolicy(name=name):
            certified = _cuts(guard, certificate.false_alarm, guard.share)
            look = span(measured.full, measured.columns[name], 3)
            squeeze = SqueezeGuard(artifacts.fitted.squeeze[name], look, primary, measured.source)
            stage: Stage[Batch] = Stage(
                name, squeeze, certified, Reason.ABSTAINED, budget_s, on_error, enforce
            )
            return FeatureStage(stage, primary, on_error, measured.ahead)
        case _:
            assert_never(guard)


def measures_of(artifacts: Artifacts) -> Measures:
    """What the fitted guards measure, recorded on a few rows that the primary has answered.

    Raises ArtifactError where the model's outputs do not suit a guard.
    """
    name, primary = next(iter(artifacts.models.items()))
    source = primary.inputs[0].name
    rows, answer = primary.example()
    x = np.random.default_rng(0).random(rows[source].shape, np.float32)
    try:
        return measures(name, source, artifacts.fitted, {**answer, "x": x})
    except ValueError as error:
        raise ArtifactError([Problem("guards", str(error), GUARDS_FILE)]) from error


def _cuts(
    guard: OodPolicy | SqueezePolicy, certified: FalseAlarm | None, share: float
) -> dict[Verdict, float]:
    """The certified cut on the joint risk, on this guard's own scale (see `calibrate` for `share`)."""
    if certified is None:
        raise ArtifactError(
            [Problem(f"guards.{guard.name}", "has no cut in the certificate", CERTIFICATE_FILE)]
        )
    return {VERDICTS[verdict]: certified.cut - math.log(share) for verdict in guard.cuts}


def _rung(rung: RungPolicy, policy: Policy, artifacts: Artifacts, stores: Stores) -> Rung:
    loaded = artifacts.models[rung.name]
    breaker = Breaker(loaded, failures=FAILURES_TO_OPEN, reset_s=RESET_S)
    stores.breakers[rung.name] = breaker
    outputs = {spec.name: spec.shape[1:] for spec in loaded.outputs}
    model = Model(rung.name, breaker, rung.budget_s, outputs)
    return Rung(model, tuple(_check(check, rung.name, policy, artifacts) for check in rung.checks))


def _check(check: ConfidencePolicy, rung: str, policy: Policy, artifacts: Artifacts) -> Stage[Answered]:
    certified = artifacts.certificate.selective.get(rung)
    if certified is None:
        raise ArtifactError(
            [Problem(f"rungs.{rung}.{check.name}", "has no cut in the certificate", CERTIFICATE_FILE)]
        )
    return Stage(
        check.name,
        Confidence(),
        {Verdict.DEGRADE: certified.cut},
        Reason.ABSTAINED,
        check.budget_s,
        VERDICTS[check.on_error],
        check.enforce and policy.mode == "enforce",
    )
