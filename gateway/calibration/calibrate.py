"""Fits the guards on held-out data and certifies what they promise.

Four disjoint folds (`folds.py`) of held-out, labelled, in-distribution rows, never the training data: `fit`
and `tail` for the guards, `cut` for the one false-alarm cut over all of them together, `risk` for the
confidence cuts. A budget that the data cannot support is refused with the number of rows that would do.

The joint risk of a row is the largest risk that any certified guard gives it, so one cut on that scale, set
at each guard, stops exactly the rows whose joint risk reaches it: one budget, however they correlate. A
guard's `share` moves its risk by log(share) first, so that it may spend that part of the budget.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.folds import SEED, Progress, answered_rows, split
from gateway.calibration.selective import certify_ladder
from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.core.rows import F8, Mask
from gateway.deployment.artifacts import save_guards
from gateway.deployment.certificate import (
    GUARDS_FILE,
    Certificate,
    Digests,
    FalseAlarm,
    policy_digest,
    sha256,
)
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import record_upstreams, write_upstreams
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import CalibrationRows, FittingFolds
from gateway.policy.schema import Policy
from guards.order_statistic import certified_cut


def calibrate(deployment: Deployment, data: Path, progress: Progress = lambda step: None) -> Certificate:
    """Fits, certifies and writes `guards.npz` and `certificate.json` into the deployment's folder.

    Of models in other servers it writes what identifies them, in `upstreams.json`.

    Args:    data: an .npz of labelled rows in any order, as `dataset.read` reads it.
    Raises:  PolicyError, ArtifactError: what cannot be read, fitted or certified, and what would help.
    Cost:    two passes of each model over the data; about half a minute for 15,000 small images.
    """
    upstreams = record_upstreams(deployment)
    models = load_models(deployment, upstreams)
    try:
        certificate = _calibrate(deployment, models, data, progress)
        write_upstreams(deployment, upstreams)
        certificate.write(deployment.folder)
        return certificate
    finally:
        for model in models.values():
            model.close()


def _calibrate(
    deployment: Deployment, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> Certificate:
    policy, path = deployment.policy, deployment.folder / GUARDS_FILE
    progress("reading the data")
    rows = answered_rows(contract_of(deployment, models), models, data, progress)
    folds = split(rows)
    try:
        guards = _fit(policy, FittingFolds(folds["fit"], folds["tail"], SEED), progress)
        progress("certifying the false-alarm cut")
        alarm = _false_alarm(deployment, joint_risk(policy, guards, folds["cut"]))
        without = _false_alarm(deployment, input_only_risk(guards, folds["cut"]))
        progress("certifying the confidence cuts")
        passed = _passed(joint_risk(policy, guards, folds["risk"]), alarm, folds["risk"])
        passed_without = _passed(input_only_risk(guards, folds["risk"]), without, folds["risk"])
        selective, answered = certify_ladder(policy, folds["risk"], passed, passed_without)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(data))]) from error
    save_guards(path, guards)
    return Certificate(
        schema_=1,
        deployment=policy.name,
        population=f"rows exchangeable with the {len(rows)} labelled rows of {data.name}",
        rows={name: len(fold) for name, fold in folds.items()},
        false_alarm=alarm,
        without_features=without,
        selective=selective,
        answered=answered,
        digests=Digests(
            policy=policy_digest(policy),
            models={name: model.digest for name, model in models.items()},
            guards=sha256(path),
            data=hashlib.sha256(data.read_bytes()).hexdigest(),
        ),
    )


def _fit(policy: Policy, folds: FittingFolds, progress: Progress) -> dict[str, FittedGuard]:
    fitted: dict[str, FittedGuard] = {}
    for guard in policy.guards:
        if guard.certified:
            progress(f"fitting {guard.name}")
            fitted[guard.name] = guard.fit(folds)
    return fitted


def joint_risk(policy: Policy, fitted: Mapping[str, FittedGuard], rows: CalibrationRows) -> F8 | None:
    """float64[n]: the largest shared risk that any certified guard gives a row; None without such guards."""
    risks = [
        fitted[guard.name].risk(rows) + math.log(guard.share) for guard in policy.guards if guard.certified
    ]
    return np.max(risks, axis=0) if risks else None


def input_only_risk(fitted: Mapping[str, FittedGuard], rows: CalibrationRows) -> F8 | None:
    """The same for the forms that need the input alone: what judges while the primary is gone."""
    forms = [guard.input_only for guard in fitted.values() if guard.input_only is not None]
    risks = [form.score(rows.x[rows.source]) for form in forms]
    return np.max(risks, axis=0) if risks else None


def _false_alarm(deployment: Deployment, risks: F8 | None) -> FalseAlarm | None:
    if risks is None:
        return None
    policy = deployment.policy
    try:
        cut = certified_cut(risks, policy.false_alarm_budget, policy.delta)
    except ValueError as error:
        what = f"{error} in the cut fold"
        raise PolicyError([deployment.problem(("false_alarm_budget",), what)]) from error
    return FalseAlarm(budget=cut.a, delta=cut.delta, n=cut.n, k=cut.k, cut=cut.value)


def _passed(risks: F8 | None, alarm: FalseAlarm | None, rows: CalibrationRows) -> Mask:
    """bool[n]: the rows that the guards let pass."""
    if risks is None or alarm is None:
        return np.ones(len(rows), bool)
    return np.asarray(risks < alarm.cut)
