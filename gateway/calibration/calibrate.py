"""Fits the guards on held-out data and certifies their cuts.

Four disjoint folds (`folds.py`) of held-out, labelled, in-distribution rows, never the training data: `fit`
and `tail` for the guards, `cut` for the one false-alarm cut over all of them together, `risk` for the
confidence cuts. Every fold but `fit` is judged by the guards and graphs that serve (`judge.py`), and the
counts of the certificate are those of the compiled pipeline (`served.py`). A promise that the data cannot
support is refused with the number of rows that suffices (`refusals.py`); one that the policy's shape cannot
have is left out and named (`not_promised.py`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fallbacks.predictor import LoadedModel
from gateway.calibration.alarms import (
    Alarms,
    BudgetRefused,
    assumed_without_primary,
    certified_guards,
    certify_guards,
    ladder_rows,
)
from gateway.calibration.attempts import record_attempt
from gateway.calibration.evidence import evidence_of
from gateway.calibration.folds import SEED, HeldOut, Progress, held_out, read_rows
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.calibration.ladder import AnsweredRefused, Ladder, RungRefused, certify_ladder
from gateway.calibration.not_promised import not_promised
from gateway.calibration.page import render_report
from gateway.calibration.paths import LadderRows
from gateway.calibration.refusals import Refusals
from gateway.calibration.row_hashes import row_hashes
from gateway.calibration.samples import Samples
from gateway.calibration.served import ServedRows, serve
from gateway.calibration.statements import confidence, error_statements
from gateway.core.decision import Verdict
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.artifacts import Artifacts, save_guards
from gateway.deployment.certificate import (
    GUARDS_FILE,
    Certificate,
    Digests,
    SampleCounts,
    policy_digest,
    sha256,
)
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.models import load_models
from gateway.deployment.promises import promises
from gateway.deployment.upstreams import record_upstreams, write_upstreams
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.schema import Policy

REPORT_FILE = "calibration.html"


def calibrate(deployment: Deployment, data: Path, progress: Progress = lambda step: None) -> Certificate:
    """Fits, certifies and writes `guards.npz`, `certificate.json` and the report into the folder.

    What identifies models in other servers is written to `upstreams.json`, and that these rows were read to
    `var/calibrations.jsonl`.

    Args:    data: an .npz of labelled rows in any order, as `dataset.read` reads it.
    Raises:  PolicyError, ArtifactError naming what cannot be read, fitted or certified, with a remedy.
    Cost:    two or three passes of each model over the data; half a minute for 15,000 small images.
    """
    upstreams = record_upstreams(deployment)
    models = load_models(deployment, upstreams)
    try:
        contract = contract_of(deployment, models)
        progress("reading the data")
        held = held_out(contract, models, data, progress)
        attempts = _record_attempt(deployment, models, held, data)
        try:
            found = _certify(deployment, models, held, progress)
        except ValueError as error:
            raise ArtifactError([Problem("", str(error), str(data))]) from error
        certificate = _certificate(deployment, models, held, found, data)
        progress("serving the held-out rows")
        artifacts = Artifacts(models, contract, found.guards, certificate, "calibration")
        served = serve(deployment.policy, artifacts, found.judged["risk"].rows)
        certificate = _with_errors(deployment.policy, certificate, found, served, attempts)
        write_upstreams(deployment, upstreams)
        progress("writing the report")
        return _write(deployment, certificate, found)
    finally:
        for model in models.values():
            model.close()


def independent_rows(deployment: Deployment, data: Path) -> int:
    """How many samples a file has; no model is asked. Raises as `calibrate` for what cannot be read."""
    models = load_models(deployment, record_upstreams(deployment))
    try:
        return read_rows(contract_of(deployment, models), data)[2].counted
    finally:
        for model in models.values():
            model.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Certified:
    """What the folds decided. judged: the folds `tail`, `cut` and `risk`; test: `risk` before the ladder."""

    guards: dict[str, FittedGuard]
    judged: Mapping[str, Judged]
    alarms: Alarms
    ladder: Ladder
    test: LadderRows


def _record_attempt(
    deployment: Deployment, models: Mapping[str, LoadedModel], held: HeldOut, data: Path
) -> int:
    """How many calibrations have read these rows. Recorded before a label decides anything."""
    parts = [policy_digest(deployment.policy), *(model.digest for model in models.values()), sha256(data)]
    what = hashlib.sha256("".join(parts).encode()).hexdigest()
    return record_attempt(deployment.var, row_hashes(held.rows.x, held.rows.y), what, time.time())


def _certify(
    deployment: Deployment, models: Mapping[str, LoadedModel], held: HeldOut, progress: Progress
) -> _Certified:
    """Everything that the folds decide. Raises PolicyError, and ValueError of a guard that cannot be fit."""
    policy, folds = deployment.policy, held.folds()
    refusals = Refusals(deployment, held.samples)
    guards = _fit(policy, FittingFolds(folds["fit"], folds["tail"], SEED), progress)
    progress("judging the held-out rows")
    measured = measures_on(folds["fit"], guards)
    judged = {name: judge(folds[name], guards, measured) for name in ("tail", "cut", "risk")}
    progress("certifying the false-alarm cut")
    try:
        alarms = certify_guards(policy, judged["cut"])
    except BudgetRefused as refused:
        raise refusals.budget(refused.n) from refused
    progress("certifying the confidence cuts")
    tail, cut, test = (ladder_rows(policy, judged[name], alarms) for name in ("tail", "cut", "risk"))
    try:
        ladder = certify_ladder(policy, tail.beside(cut), test)
    except RungRefused as refused:
        raise refusals.rung(refused.rung, refused.surest) from refused
    except AnsweredRefused as refused:
        raise refusals.answered(refused.surest) from refused
    return _Certified(guards, judged, alarms, ladder, test)


def _fit(policy: Policy, folds: FittingFolds, progress: Progress) -> dict[str, FittedGuard]:
    fitted: dict[str, FittedGuard] = {}
    for guard in certified_guards(policy):
        progress(f"fitting {guard.name}")
        fitted[guard.name] = guard.fit(folds)
    return fitted


def _certificate(
    deployment: Deployment, models: Mapping[str, LoadedModel], held: HeldOut, found: _Certified, data: Path
) -> Certificate:
    """The certificate with every cut. What is promised of errors follows when the rows have been served."""
    policy, samples, alarms = deployment.policy, held.samples, found.alarms
    kept = assumed_without_primary(policy, found.judged["cut"].input_only) >= Verdict.DEFER
    alone = alarms.input_only and alarms.input_only.model_copy(update={"promised": not kept})
    return Certificate(
        schema_=2,
        deployment=policy.name,
        population=_population(samples, data.name),
        samples=SampleCounts(
            rows=samples.rows, counted=samples.counted, by=samples.by, warning=samples.warning
        ),
        rows=held.samples_by_fold(),
        false_alarm=alarms.full,
        without_features=alone,
        selective={},
        unpromised_cuts=dict(found.ladder.own),
        answered=None,
        confidence=confidence(policy.delta, 0, 1),
        not_promised=[],
        digests=Digests(
            policy=policy_digest(policy),
            models={name: model.digest for name, model in models.items()},
            guards="",
            data=sha256(data),
        ),
    )


def _population(samples: Samples, file: str) -> str:
    if samples.by == "groups":
        return f"a row of a new group, exchangeable with the {samples.counted} groups of {file}"
    if samples.by == "rows":
        return f"rows exchangeable with the {samples.rows} labelled rows of {file}"
    return f"rows exchangeable with the {samples.counted} samples among the {samples.rows} rows of {file}"


def _with_errors(
    policy: Policy, certificate: Certificate, found: _Certified, served: ServedRows, attempts: int
) -> Certificate:
    """The whole certificate, with what is promised of errors and what is not promised at all."""
    errors = error_statements(policy, found.ladder, found.test, served)
    whole = certificate.model_copy(
        update={
            "selective": dict(errors.selective),
            "unpromised_cuts": dict(errors.unpromised_cuts),
            "answered": errors.answered,
        }
    )
    left_out = not_promised(policy, whole, found.judged["cut"].input_only)
    sure = confidence(policy.delta, len(promises(whole)), attempts)
    return whole.model_copy(update={"confidence": sure, "not_promised": [*left_out]})


def _write(deployment: Deployment, certificate: Certificate, found: _Certified) -> Certificate:
    """Writes the guards, the certificate with their digest, and the report."""
    path = deployment.folder / GUARDS_FILE
    save_guards(path, found.guards)
    digests = certificate.digests.model_copy(update={"guards": sha256(path)})
    bound = certificate.model_copy(update={"digests": digests})
    bound.write(deployment.folder)
    evidence = evidence_of(deployment.policy, found.judged, found.alarms, found.ladder)
    report = render_report(bound, deployment.policy, evidence, time.time())
    (deployment.folder / REPORT_FILE).write_text(report, "utf-8")
    return bound
