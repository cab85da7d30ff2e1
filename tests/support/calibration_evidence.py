"""Evidence, certificates and policies of calibrations that never ran, for what shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence, GuardEvidence, RungEvidence
from gateway.deployment.certificate import Certificate
from gateway.policy.conditions import conditions_of
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy

Array = NDArray[Any]
OOD = {"kind": "ood", "detectors": ["raw"], "budget_s": 0.01, "on_error": "defer"}
CHECK = {"kind": "confidence", "selective_error": 0.1, "budget_s": 0.01, "on_error": "degrade"}
ALARM = {"budget": 0.05, "delta": 0.05, "n": 200, "k": 4, "cut": 3.0, "slices": []}
SELECTIVE = {
    "risk": 0.1, "delta": 0.05, "cut": 0.5, "n": 200, "accepted": 150, "errors": 5, "bound": 0.07,
    "coverage": 0.75, "while_gone": [],
}  # fmt: skip
GONE = {"while_gone": ["primary"]}
RUNGS = ("primary", "small")
WIDTH = {"kind": "interval", "selective_error": 0.1, "budget_s": 0.01, "on_error": "degrade"}
NUMBERS = {"kind": "number", "low": -3.0, "high": 3.0}
CLASSES = {"kind": "classes", "names": ["0", "1", "2", "3"], "values": [], "by_name": False, "unseen": []}


def policy_of(*, guards: int = 1, check: bool = True, labels: tuple[str, ...] = (), **more: Any) -> Policy:
    """A policy with so many guards and two rungs."""
    fields = {
        "schema": 1, "name": "sample", "deadline_s": 1.0, "false_alarm_budget": 0.05, "answered_error": 0.1,
        "labels": list(labels), "expose": ["probabilities"],
        "rungs": _rungs(check=check),
        "guards": [OOD | {"name": f"g{i}", "cuts": {"defer": "certified"}} for i in range(guards)],
    }  # fmt: skip
    return Policy.model_validate(fields | more)


def _rungs(*, check: bool) -> list[dict[str, Any]]:
    return [
        {"name": name, "model": {"kind": "onnx", "path": f"{name}.onnx"}, "budget_s": 0.01}
        | ({"checks": [CHECK | {"name": f"{name}_confidence"}]} if check else {})
        for name in RUNGS
    ]


def number_policy_of(*, check: bool = True, **more: Any) -> Policy:
    """The same of two regressors."""
    named = [{"name": name, "checks": [WIDTH | {"name": f"{name}_width"}] * check} for name in RUNGS]
    rungs = [rung | one for rung, one in zip(_rungs(check=False), named, strict=True)]
    return policy_of(task="regression", expose=["value"], rungs=rungs, **more)


def certificate_of(*, guards: bool = True, check: bool = True, **more: Any) -> Certificate:
    """A certificate of that policy. more: fields instead of the usual ones."""
    fields = {
        "schema": 4, "deployment": "sample", "population": "rows exchangeable with the 750 rows of data.npz",
        "samples": {"rows": 750, "counted": 750, "by": "rows", "warning": None, "unused": []},
        "rows": {"fit": 250, "tail": 150, "cut": 200, "risk": 150},
        "false_alarm": ALARM if guards else None,
        "without_features": ALARM if guards else None,
        "selective": {"primary": SELECTIVE, "small": SELECTIVE | GONE} if check else {},
        "unpromised_cuts": {}, "answered": SELECTIVE if check else None, "absolute_error": None,
        "parity": None, "target": CLASSES, "unguarded": {},
        "confidence": {"each": 0.95, "promises": 2 * guards + 3 * check, "together": 0.75, "attempts": 1,
                       "over_attempts": 0.95},
        "not_promised": [],
        "digests": {"policy": "ab", "models": {"primary": "cd"}, "guards": "ef", "scores": "02",
                    "data": "01"},
        "conditions": conditions_of(policy_of(guards=int(guards), check=check)),
    }  # fmt: skip
    return Certificate.model_validate(fields | more)


def evidence_of(
    n: int = 300,
    classes: int = 4,
    *,
    guards: int = 1,
    check: bool = True,
    probabilities: bool = True,
    logits: bool = True,
    x: dict[str, Array] | None = None,
    seed: int = 0,
) -> Evidence:
    """n judged rows of so many classes, four in five answered correctly; x: inputs of n rows."""
    rng = np.random.default_rng(seed)
    rows = _rows(rng, n, classes, probabilities, logits, x)
    tail = _rows(rng, max(n // 2, 10), classes, probabilities, logits, None)
    found, joint, stopped = _guards(rng, n, guards)
    rungs: list[RungEvidence] = []
    by = np.where(stopped, -1, 1 if check else 0)
    for i, name in reversed(list(enumerate(RUNGS))):
        p = rows.answers[name].get("probabilities")
        suspicion = 1 - p.max(axis=1).astype(float) if check and p is not None else None
        wrong = None if p is None else np.asarray(p.argmax(axis=1) != rows.y)
        cut = None if suspicion is None else 0.5
        rungs.insert(0, RungEvidence(name, p, wrong, suspicion, cut, enforced=True))
        if suspicion is not None:
            by = np.where(stopped, -1, np.where(suspicion < 0.5, i, by if i == 0 else -1))
    return Evidence(rows, tail, tuple(found), tuple(rungs), joint, stopped, by)


def _rows(
    rng: np.random.Generator,
    n: int,
    classes: int,
    probabilities: bool,
    logits: bool,
    x: dict[str, Array] | None,
) -> CalibrationRows:
    y = rng.integers(0, classes, n)
    z = (
        rng.normal(size=(n, classes))
        + 4.0 * np.eye(classes)[np.where(rng.random(n) < 0.8, y, (y + 1) % classes)]
    )
    p = np.exp(z - z.max(axis=1, keepdims=True))
    answer = {"value": z[:, :1]}
    if probabilities:
        answer["probabilities"] = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    if logits:
        answer["logits"] = z.astype(np.float32)
    inputs = x or {"row": rng.random((n, 5)).astype(np.float32)}
    answers = {"primary": answer, "small": answer}
    return CalibrationRows.classified(inputs, y, answers, "primary", lambda _: answer)


def number_evidence_of(
    n: int = 300, *, guards: int = 1, interval: bool = True, relative: bool = False, seed: int = 0
) -> Evidence:
    """n judged rows of numbers, of which a tenth lies outside the interval value - 1 to value + 1.

    The second rung's numbers are ten larger. relative: whether the check divides the width by the number.
    """
    rng = np.random.default_rng(seed)
    value = 20.0 + 5.0 * rng.normal(size=n)
    outside = rng.random(n) < 0.1
    truth = value + rng.choice([-1, 1], n) * np.where(outside, 1.5, 0.5)
    x = {"row": rng.random((n, 5)).astype(np.float32)}
    answers = {name: {"value": (value + 10.0 * i)[:, None]} for i, name in enumerate(RUNGS)}
    if interval:
        for one in answers.values():
            one |= {"lower": one["value"] - 1.0, "upper": one["value"] + 1.0}
    rows = CalibrationRows.classified(
        x, np.zeros(n, np.int64), answers, "primary", lambda _: answers["primary"]
    )
    rows = replace(rows, truth=truth)
    found, joint, stopped = _guards(rng, n, guards)
    width = (2.0 / value if relative else np.full(n, 2.0)) if interval else None
    rungs = (
        RungEvidence("primary", None, outside if interval else None, width, 3.0, True, relative),
        RungEvidence("small", None, np.ones(n, bool) if interval else None, width, 3.0, True, relative),
    )
    return Evidence(rows, rows, tuple(found), rungs, joint, stopped, np.where(stopped, -1, 0))


def label_evidence_of(n: int = 300, *, seed: int = 0) -> Evidence:
    """n judged rows of a model that gives labels alone: the true class, but of each tenth row another one."""
    evidence = evidence_of(n, check=False, probabilities=False, seed=seed)
    wrong = np.arange(n) % 10 == 0
    labelled = {name: np.where(wrong, (evidence.rows.y + 1) % 4, evidence.rows.y) for name in RUNGS}
    rungs = tuple(replace(rung, wrong=wrong) for rung in evidence.rungs)
    return replace(evidence, rows=replace(evidence.rows, labelled=labelled), rungs=rungs)


def _guards(
    rng: np.random.Generator, n: int, guards: int
) -> tuple[list[GuardEvidence], NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Guards that stop from 3 nats on, their joint risk, and the rows that they stop."""
    scores = [rng.exponential(1.0, n) for _ in range(guards)]
    found = [
        GuardEvidence(f"g{i}", "ood", "defer", True, one, 3.0, rng.exponential(1.0, n), 3.5)
        for i, one in enumerate(scores)
    ]
    joint = np.max(scores, axis=0) if scores else None
    return found, joint, np.zeros(n, bool) if joint is None else joint >= 3.0
