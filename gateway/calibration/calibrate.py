"""Fits the guards on held-out data and certifies what they promise.

Four disjoint folds of held-out, labelled, in-distribution rows, never the training data: `fit` for the
detectors, `tail` for how rare each score is, `cut` for the one false-alarm cut over all guards together,
`risk` for the confidence cuts. A budget that the data cannot support is refused with the number of rows
that would support it.

The joint risk of a row is the largest rarity that any calibrated guard gives it, so one cut on that scale,
set at each guard, stops exactly the rows whose joint risk reaches it: one budget, however they correlate.
A guard's `share` moves its rarity by log(share) first, so that it may spend that part of the budget.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import LoadedModel
from gateway.calibration.dataset import Labels, read
from gateway.core.decision import Tensors
from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.deployment.artifacts import Fitted, contract_of, input_only
from gateway.deployment.certificate import (
    GUARDS_FILE,
    Certificate,
    Digests,
    FalseAlarm,
    Selective,
    policy_digest,
    sha256,
)
from gateway.deployment.models import load_models
from gateway.deployment.upstreams import record_upstreams, write_upstreams
from gateway.policy.schema import OodPolicy, Policy, SqueezePolicy, load_policy, locate
from gateway.protocol.contract import Contract
from guards import arrays
from guards.confidence import unsureness
from guards.ood import Ood
from guards.order_statistic import certified_cut
from guards.rows import F8, Signals
from guards.selective import Acceptance, certified_acceptance, clopper_pearson_upper
from guards.squeeze import Squeeze
from guards.squeezers import SQUEEZERS, distance, variants

FOLDS = {"fit": 1 / 3, "tail": 1 / 5, "cut": 4 / 15, "risk": 1 / 5}
SEED = 0
CHUNK = 512
COVERAGES = tuple(i / 200 for i in range(8, 201))
BITS = 4
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fold:
    """Some of the rows, with what every rung says of them."""

    x: Tensors
    y: Labels
    answers: Mapping[str, Tensors]
    primary: str
    source: str

    @property
    def signals(self) -> Signals:
        answer = self.answers[self.primary]
        return Signals(self.x[self.source], answer.get("features"), answer.get("logits"))

    def take(self, rows: NDArray[np.intp]) -> Fold:
        def of(tensors: Tensors) -> Tensors:
            return {name: array[rows] for name, array in tensors.items()}

        answers = {name: of(answer) for name, answer in self.answers.items()}
        return Fold(of(self.x), self.y[rows], answers, self.primary, self.source)


def calibrate(folder: Path, data: Path, progress: Progress = lambda step: None) -> Certificate:
    """Fits, certifies and writes `guards.npz` and `certificate.json` into `folder`.

    Of models that live elsewhere it keeps what identifies them, in `upstreams.json`.

    Args:    data: an .npz of labelled rows in any order, as `heldout` reads it.
    Raises:  PolicyError, ArtifactError: what cannot be read, fitted or certified, and what would help.
    Cost:    two passes of each model over the data; about half a minute for 15,000 small images.
    """
    policy = load_policy(folder)
    upstreams = record_upstreams(folder, policy)
    models = load_models(folder, policy, upstreams)
    try:
        certificate = _calibrate(folder, policy, models, data, progress)
        write_upstreams(folder, upstreams)
        certificate.write(folder)
        return certificate
    finally:
        for model in models.values():
            model.close()


def _calibrate(
    folder: Path, policy: Policy, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> Certificate:
    progress("reading the data")
    everything = _everything(contract_of(folder, policy, models), policy, models, data, progress)
    rows = np.random.default_rng(SEED).permutation(len(everything.y))
    edges = np.cumsum([int(share * len(rows)) for share in FOLDS.values()])[:-1]
    folds = {name: everything.take(part) for name, part in zip(FOLDS, np.split(rows, edges), strict=True)}
    primary = models[everything.primary]
    try:
        fitted = _fit(policy, folds["fit"], folds["tail"], primary, progress)
        progress("certifying the false-alarm cut")
        alarm = _false_alarm(folder, policy, joint_risk(policy, fitted, folds["cut"], primary))
        without = _false_alarm(folder, policy, input_risk(fitted, folds["cut"]))
        progress("certifying the confidence cuts")
        kept = _kept(policy, fitted, folds["risk"], primary, alarm, without)
        selective, answered = _selective(policy, folds["risk"], kept)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(data))]) from error
    fitted.save(folder / GUARDS_FILE)
    return Certificate(
        schema_=1,
        deployment=policy.name,
        population=f"rows exchangeable with the {len(rows)} labelled rows of {data.name}",
        rows={name: len(fold.y) for name, fold in folds.items()},
        false_alarm=alarm,
        without_features=without,
        selective=selective,
        answered=answered,
        digests=Digests(
            policy=policy_digest(policy),
            models={name: model.digest for name, model in models.items()},
            guards=sha256(folder / GUARDS_FILE),
            data=hashlib.sha256(data.read_bytes()).hexdigest(),
        ),
    )


def _everything(
    contract: Contract, policy: Policy, models: Mapping[str, LoadedModel], data: Path, progress: Progress
) -> Fold:
    primary = policy.rungs[0].name
    try:
        x, y = read(arrays.load(data), contract)
    except (OSError, ValueError) as error:
        raise ArtifactError([Problem("", str(error), str(data))]) from error
    answers = {}
    for name, model in models.items():
        progress(f"asking {name} for {len(y)} rows")
        answers[name] = _ask(model, x)
    p = answers[primary].get("probabilities")
    classes = p.shape[1] if p is not None and p.ndim == 2 else None
    if classes is not None and not (y.min() >= 0 and y.max() < classes):
        what = f"y: holds labels from {y.min()} to {y.max()}; the model has the classes 0 to {classes - 1}"
        raise ArtifactError([Problem("", what, str(data))])
    return Fold(x, y, answers, primary, contract.inputs[0].name)


def _ask(model: LoadedModel, x: Tensors) -> Tensors:
    n = len(next(iter(x.values())))
    parts = [model.run({k: a[i : i + CHUNK] for k, a in x.items()}) for i in range(0, n, CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _fit(policy: Policy, fit: Fold, tail: Fold, primary: LoadedModel, progress: Progress) -> Fitted:
    ood: dict[str, Ood] = {}
    squeeze: dict[str, Squeeze] = {}
    for guard in policy.guards:
        if isinstance(guard, OodPolicy):
            progress(f"fitting {guard.name}")
            ood[guard.name] = Ood.fit(guard.detectors, fit.signals, fit.y, tail.signals, SEED)
            if guard.without_features == "input_only":
                ood[input_only(guard.name)] = Ood.fit(
                    guard.input_only, fit.signals, fit.y, tail.signals, SEED
                )
        elif isinstance(guard, SqueezePolicy):
            progress(f"fitting {guard.name}")
            h, tail_h = fit.signals.h, tail.signals.h
            if h is None or tail_h is None:
                raise ValueError(f"{guard.name}: the primary has no output named features")
            p = tail.answers[tail.primary]["probabilities"]
            squeezed = _ask(primary, _squeezed(tail.x, tail.source, BITS))["probabilities"]
            squeeze[guard.name] = Squeeze.fit(h, fit.y, tail_h, p, squeezed, seed=SEED, bits=BITS)
    return Fitted(ood, squeeze)


def joint_risk(policy: Policy, fitted: Fitted, fold: Fold, primary: LoadedModel) -> F8 | None:
    """float64[n]: the largest shared rarity that any calibrated guard gives a row; None without guards."""
    risks: list[F8] = []
    for guard in policy.guards:
        if isinstance(guard, OodPolicy):
            risks.append(fitted.ood[guard.name].score(fold.signals) + math.log(guard.share))
        elif isinstance(guard, SqueezePolicy):
            risks.append(_squeeze_risk(fitted.squeeze[guard.name], fold, primary) + math.log(guard.share))
    return np.max(risks, axis=0) if risks else None


def input_risk(fitted: Fitted, fold: Fold) -> F8 | None:
    """The same for the forms that need the input alone: what judges while the primary is gone."""
    signals = Signals(fold.x[fold.source])
    risks = [ood.score(signals) for name, ood in fitted.ood.items() if name.endswith(input_only(""))]
    return np.max(risks, axis=0) if risks else None


def _squeezed(x: Tensors, source: str, bits: int) -> Tensors:
    """The variants of the rows, beside other inputs as they are: what `SqueezeGuard` asks."""
    same = {name: np.concatenate([array] * SQUEEZERS) for name, array in x.items()}
    return same | {source: variants(x[source], bits)}


def _squeeze_risk(squeeze: Squeeze, fold: Fold, primary: LoadedModel) -> F8:
    """As `SqueezeGuard.score`, for a whole fold."""
    answer = fold.answers[fold.primary]
    h, p = answer["features"], answer["probabilities"]
    changes = np.zeros(len(fold.y))
    rows = np.flatnonzero(squeeze.triggered(h))
    if rows.size:
        odd = {name: array[rows] for name, array in fold.x.items()}
        squeezed = _ask(primary, _squeezed(odd, fold.source, squeeze.bits))
        changes[rows] = distance(p[rows], squeezed["probabilities"])
    return squeeze.score(h, p, changes)


def _false_alarm(folder: Path, policy: Policy, risks: F8 | None) -> FalseAlarm | None:
    if risks is None:
        return None
    try:
        cut = certified_cut(risks, policy.false_alarm_budget, policy.delta)
    except ValueError as error:
        raise PolicyError([locate(folder, ("false_alarm_budget",), f"{error} in the cut fold")]) from error
    return FalseAlarm(budget=cut.a, delta=cut.delta, n=cut.n, k=cut.k, cut=cut.value)


def _kept(
    policy: Policy,
    fitted: Fitted,
    fold: Fold,
    primary: LoadedModel,
    alarm: FalseAlarm | None,
    without: FalseAlarm | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """bool[n] twice: the rows that the guards let pass, in full and by the input alone."""
    everyone = np.ones(len(fold.y), bool)
    full, blind = joint_risk(policy, fitted, fold, primary), input_risk(fitted, fold)
    passed = everyone if full is None or alarm is None else full < alarm.cut
    passed_blind = everyone if blind is None or without is None else blind < without.cut
    return passed, passed_blind


def _selective(
    policy: Policy, fold: Fold, kept: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[dict[str, Selective], Selective | None]:
    """The confidence cut of every rung that has one, and what they certify together.

    The first rung is certified on what the guards let pass. A later rung must hold twice: when it stands in
    for a primary that is gone, on the rows that the input-only form lets pass; and when it answers what the
    rungs before it were unsure of, so that of everything answered at most `answered_error` is wrong. The
    stricter cut counts, on either path: a cut that depended on the path would let a worse row end better.
    """
    told: dict[str, Selective] = {}
    answered: Selective | None = None
    passed, passed_blind = kept
    taken, wrong = np.zeros(len(fold.y), bool), np.zeros(len(fold.y), bool)
    for depth, rung in enumerate(policy.rungs):
        check = next(iter(rung.checks), None)
        if check is None:
            continue
        p = fold.answers[rung.name]["probabilities"]
        unsure, misses = unsureness(p), p.argmax(axis=1) != fold.y
        alone = passed_blind if depth else passed
        found = certified_acceptance(
            unsure[alone], misses[alone], check.selective_error, policy.delta, COVERAGES
        )
        together, amiss = np.where(taken, -1.0, unsure)[passed], np.where(taken, wrong, misses)[passed]
        both = certified_acceptance(together, amiss, policy.answered_error, policy.delta, COVERAGES)
        cut = min(found.cut, both.cut)
        told[rung.name] = _told(found, unsure[alone], misses[alone], cut)
        answered = _told(both, together, amiss, cut)
        wrong |= misses & ~taken & (unsure < cut)
        taken |= unsure < cut
    return told, answered


def _told(found: Acceptance, suspicion: F8, wrong: NDArray[np.bool_], cut: float) -> Selective:
    """What a certified acceptance says at a cut that may be stricter than its own.

    A stricter cut errs no more often (what `guards.selective` assumes), so the bound of the looser one holds.
    """
    taken = suspicion < cut
    accepted, errors = int(taken.sum()), int(wrong[taken].sum())
    return Selective(
        risk=found.r,
        delta=found.delta,
        cut=cut,
        n=found.n,
        accepted=accepted,
        errors=errors,
        bound=min(found.bound, clopper_pearson_upper(errors, accepted, found.delta)),
        coverage=accepted / found.n,
    )
