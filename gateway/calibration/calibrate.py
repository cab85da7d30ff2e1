"""Fits the guards on held-out data and certifies their cuts.

Four disjoint folds (`folds.py`) of held-out, labelled, in-distribution rows, never the training data: `fit`
and `tail` for the guards, `cut` for the one false-alarm cut over all of them together, `risk` for the
confidence cuts. Every fold but `fit` is judged by the guards and graphs that serve (`judge.py`), and the
counts of the certificate are those of the compiled pipeline (`served.py`). A promise that the data cannot
support is refused with what the file lacks (`refusals.py`); one that the policy's shape cannot
have is left out and named (`not_promised.py`).
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fallbacks.predictor import LoadedModel
from gateway.calibration.attempts import Attempts, record_attempt
from gateway.calibration.certify import Certified, certify
from gateway.calibration.evidence import Evidence, evidence_of
from gateway.calibration.fold_scores import absolute_errors
from gateway.calibration.folds import HeldOut, Progress, held_out, read_rows
from gateway.calibration.not_promised import not_promised, stopped_too_often
from gateway.calibration.page import render_report
from gateway.calibration.prices import fit_prices
from gateway.calibration.refusals import Refusals
from gateway.calibration.row_hashes import row_hashes
from gateway.calibration.samples import count_samples
from gateway.calibration.served import ServedRows, serve
from gateway.calibration.slices import class_names, class_slices
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import (
    CERTIFICATE_FILE,
    GUARDS_FILE,
    SCORES_FILE,
    Certificate,
    Digests,
    NoTarget,
    ParityFinding,
    SampleCounts,
    policy_digest,
    sha256,
)
from gateway.deployment.certification.absolute_error import MeanRefused
from gateway.deployment.certification.fitted_scores import fitted_scores
from gateway.deployment.certification.recompute import numbers_of
from gateway.deployment.certification.scores import CertifyingScores
from gateway.deployment.certification.scores_file import save_scores
from gateway.deployment.certification.statements import confidence, error_statements
from gateway.deployment.contract import contract_of
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import inputs_of_one_size, save_guards, unguarded
from gateway.deployment.interval_model import with_intervals
from gateway.deployment.models import load_models
from gateway.deployment.promises import promises
from gateway.deployment.row_independence import rungs_apart
from gateway.deployment.target import target_of
from gateway.deployment.upstreams import record_upstreams, write_upstreams
from gateway.policy.conditions import conditions_of
from gateway.policy.schema import Policy

REPORT_FILE, STAGING_FOLDER = "calibration.html", ".calibrating"
WRITTEN_FILES = (REPORT_FILE, GUARDS_FILE, SCORES_FILE, CERTIFICATE_FILE)


def calibrate(deployment: Deployment, data: Path, progress: Progress = lambda step: None) -> Certificate:
    """Fits, certifies, and writes guards, scores, certificate and the report into the folder.

    What identifies models in other servers is written to `upstreams.json`, and that these rows were read to
    `var/calibrations.jsonl`.

    Args:    data: held-out rows in any order, as `dataset.read` reads them.
    Raises:  PolicyError, ArtifactError naming what cannot be read, fitted or certified, with a remedy.
    Cost:    two or three passes of each model over the data; half a minute for 15,000 small images.
    """
    upstreams = record_upstreams(deployment)
    models = load_models(deployment, upstreams)
    try:
        progress("reading the data")
        held = held_out(deployment, models, data, progress)
        data_digest = sha256(data)
        attempts = _record_attempt(deployment, models, held, data_digest)
        try:
            found = certify(deployment, held, progress)
        except ValueError as error:
            raise ArtifactError([Problem("", str(error), str(data))]) from error
        digests = _digests(deployment.policy, models, data_digest)
        certificate = _certificate(deployment.policy, held, found, models, data.name, digests)
        artifacts = _artifacts(deployment, models, held, found, certificate)
        found, served = _served(deployment.policy, artifacts, found, progress)
        evidence = evidence_of(deployment.policy, found)
        try:
            scores = _scores(deployment.policy, found, served)
            certificate = _with_errors(deployment.policy, certificate, found, scores, attempts)
        except MeanRefused as refused:
            raise Refusals(deployment, held.samples).mean(refused) from refused
        certificate = _with_left_out(deployment.policy, certificate, evidence)
        progress("writing the report")
        written = _write(deployment, certificate, found, scores, evidence)
        write_upstreams(deployment, upstreams)
        return written
    finally:
        for model in models.values():
            model.close()


def _served(
    policy: Policy, artifacts: Artifacts, found: Certified, progress: Progress
) -> tuple[Certified, ServedRows]:
    """How the pipeline ends held-out rows, and what was found with the prices that follow from it."""
    progress("serving the held-out rows")
    served = serve(policy, artifacts, found.judged["risk"].rows)
    prices = fit_prices(policy, artifacts, found, progress)
    return replace(found, fitted=replace(found.fitted, prices=prices)), served


def independent_rows(deployment: Deployment, data: Path) -> int:
    """How many samples a file has. Models are loaded, and those in other servers identified, as to calibrate.

    Raises:  as `calibrate` for what cannot be read.
    """
    models = load_models(deployment, record_upstreams(deployment))
    try:
        return _independent_rows(deployment, models, data)
    finally:
        for model in models.values():
            model.close()


def _independent_rows(deployment: Deployment, models: Mapping[str, LoadedModel], data: Path) -> int:
    file = read_rows(deployment, models, data)
    n = len(next(iter(file.x.values())))
    y = np.zeros(n) if file.y is None else file.y
    _, codes = np.unique(y, return_inverse=True)  # rows count alike under any names of classes
    return count_samples(file.x, codes.astype(np.int64), file.group).counted


def _artifacts(
    deployment: Deployment,
    models: Mapping[str, LoadedModel],
    held: HeldOut,
    found: Certified,
    certificate: Certificate,
) -> Artifacts:
    """What will be loaded to serve, before it is written."""
    policy = deployment.policy
    sizes = found.kept_rows.sizes(inputs_of_one_size(policy, found.fitted.view))
    contract = contract_of(deployment, models, sizes, target_of(policy, held.target))
    served = with_intervals(policy, models, found.fitted.view, found.fitted.intervals)
    return Artifacts(served, contract, found.fitted, found.kept_rows, certificate, "calibration")


def _record_attempt(
    deployment: Deployment, models: Mapping[str, LoadedModel], held: HeldOut, data_digest: str
) -> Attempts:
    """The calibrations that have read these rows. Recorded before a label certifies anything."""
    parts = [policy_digest(deployment.policy), *(model.digest for model in models.values()), data_digest]
    what = hashlib.sha256("".join(parts).encode()).hexdigest()
    rows, delta = held.rows, deployment.policy.delta
    x = rows.x if rows.truth is None else {**rows.x, "": rows.truth.reshape(-1, 1)}
    hashes = row_hashes(x, rows.y)
    return record_attempt(deployment.var, hashes, what, delta, time.time())


def _digests(policy: Policy, models: Mapping[str, LoadedModel], data_digest: str) -> Digests:
    """What the certificate is bound to; guards and scores follow when they are written."""
    by_rung = {name: model.digest for name, model in models.items()}
    return Digests(policy=policy_digest(policy), models=by_rung, guards="", scores="", data=data_digest)


def _certificate(
    policy: Policy,
    held: HeldOut,
    found: Certified,
    models: Mapping[str, LoadedModel],
    file: str,
    digests: Digests,
) -> Certificate:
    """The certificate with every cut. What is promised of errors follows when the rows have been served."""
    samples, alarms = held.samples, found.alarms
    return Certificate(
        schema_=4,
        deployment=policy.name,
        population=_population(held, file),
        samples=SampleCounts(
            rows=samples.rows,
            counted=samples.counted,
            by=samples.by,
            warning=samples.warning,
            unused=list(held.unused),
        ),
        rows=held.samples_by_fold(),
        false_alarm=alarms.full,
        without_features=alarms.input_only,
        selective={},
        unpromised_cuts=dict(found.ladder.own),
        answered=None,
        absolute_error=None,
        target=held.target,
        unguarded=unguarded(policy, held.rows.view),
        parity=_parity(held),
        confidence=confidence(policy.delta, 0, 1, policy.delta),
        not_promised=[],
        conditions=conditions_of(policy),
        rows_apart=rungs_apart(models),
        digests=digests,
    )


def _parity(held: HeldOut) -> ParityFinding | None:
    if not held.parity.outputs:
        return None
    return ParityFinding(finding=held.parity.sentence, warning=held.parity.problem or None)


def _population(held: HeldOut, file: str) -> str:
    samples, rows = held.samples, "rows" if isinstance(held.target, NoTarget) else "labelled rows"
    if samples.by == "groups":
        return f"a row of a new group, exchangeable with the {samples.counted} groups of {file}"
    if samples.by == "rows":
        return f"rows exchangeable with the {samples.rows} {rows} of {file}"
    return f"rows exchangeable with the {samples.counted} samples among the {samples.rows} rows of {file}"


def _scores(policy: Policy, found: Certified, served: ServedRows) -> CertifyingScores:
    """What is kept for a start to recompute the certificate from."""
    tail, cut, risk = (found.scores[name] for name in ("tail", "cut", "risk"))
    errors = absolute_errors(policy, found.judged["risk"].rows)
    fitted = fitted_scores(found.fitted, found.kept_rows)
    conditions = conditions_of(policy)
    return CertifyingScores(tail, cut, risk, served.while_gone, errors, fitted, conditions)


def _with_errors(
    policy: Policy, certificate: Certificate, found: Certified, scores: CertifyingScores, attempts: Attempts
) -> Certificate:
    """The certificate with what is promised of errors, and how sure everything is."""
    errors = error_statements(policy, found.ladder, found.test, scores.answered_by, scores.absolute_errors)
    numbers = numbers_of(policy, found.alarms, errors, scores.cut)
    whole = certificate.model_copy(update=numbers)
    sure = confidence(policy.delta, len(promises(whole)), attempts.count, attempts.delta)
    return whole.model_copy(update={"confidence": sure})


def _with_left_out(policy: Policy, certificate: Certificate, evidence: Evidence) -> Certificate:
    """The certificate with what it does not promise."""
    forms = [guard.name for guard in evidence.guards if guard.input_only_scores is not None]
    unlabelled = [rung.name for rung in evidence.rungs if rung.wrong is None]
    names = class_names(policy, certificate)
    slices = class_slices(evidence, names, policy.false_alarm_budget, certificate.samples.rows)
    left_out = [*not_promised(policy, certificate, forms, unlabelled), *stopped_too_often(slices)]
    return certificate.model_copy(update={"not_promised": left_out})


def _write(
    deployment: Deployment,
    certificate: Certificate,
    found: Certified,
    scores: CertifyingScores,
    evidence: Evidence,
) -> Certificate:
    """Writes the report, guards and scores, and the certificate with their digests: all of them, or none."""
    folder, staged = deployment.folder, deployment.folder / STAGING_FOLDER
    try:
        staged.mkdir(exist_ok=True)
        save_guards(staged / GUARDS_FILE, found.fitted, found.kept_rows)
        save_scores(staged / SCORES_FILE, deployment.policy, scores)
        files = {"guards": sha256(staged / GUARDS_FILE), "scores": sha256(staged / SCORES_FILE)}
        digests = certificate.digests.model_copy(update=files)
        bound = certificate.model_copy(update={"digests": digests})
        bound.write(staged)
        report = render_report(bound, deployment.policy, evidence, time.time())
        (staged / REPORT_FILE).write_text(report, "utf-8")
        for name in WRITTEN_FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a directory", str(folder / name))
        for name in WRITTEN_FILES:
            (staged / name).replace(folder / name)
        return bound
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; nothing was changed"
        raise ArtifactError([Problem("", what, str(error.filename or folder))]) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
