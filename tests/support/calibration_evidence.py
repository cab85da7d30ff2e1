"""Evidence, certificates and policies of calibrations that never ran, for what shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence, GuardEvidence, RungEvidence
from gateway.deployment.certificate import Certificate
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
CLASSES = {"kind": "classes", "names": ["0", "1", "2", "3"], "values": [], "by_name": False, "unseen": []}


def policy_of(*, guards: int = 1, check: bool = True, labels: tuple[str, ...] = (), **more: Any) -> Policy:
    """A policy with so many guards and two rungs."""
    rungs = [
        {"name": name, "model": {"kind": "onnx", "path": f"{name}.onnx"}, "budget_s": 0.01}
        | ({"checks": [CHECK | {"name": f"{name}_confidence"}]} if check else {})
        for name in ("primary", "small")
    ]
    fields = {
        "schema": 1, "name": "sample", "deadline_s": 1.0, "false_alarm_budget": 0.05, "answered_error": 0.1,
        "labels": list(labels), "expose": ["probabilities"], "rungs": rungs,
        "guards": [OOD | {"name": f"g{i}", "cuts": {"defer": "certified"}} for i in range(guards)],
    }  # fmt: skip
    return Policy.model_validate(fields | more)


def certificate_of(*, guards: bool = True, check: bool = True, **more: Any) -> Certificate:
    """A certificate of that policy. more: fields instead of the usual ones."""
    fields = {
        "schema": 3, "deployment": "sample", "population": "rows exchangeable with the 750 rows of data.npz",
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
        "digests": {"policy": "ab", "models": {"primary": "cd"}, "guards": "ef", "data": "01"},
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
    scores = [rng.exponential(1.0, n) for _ in range(guards)]
    found = [
        GuardEvidence(f"g{i}", "ood", "defer", True, one, 3.0, rng.exponential(1.0, n), 3.5)
        for i, one in enumerate(scores)
    ]
    joint = np.max(scores, axis=0) if scores else None
    stopped = np.zeros(n, bool) if joint is None else joint >= 3.0
    rungs: list[RungEvidence] = []
    by = np.where(stopped, -1, 1 if check else 0)
    for i, name in reversed(list(enumerate(("primary", "small")))):
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
