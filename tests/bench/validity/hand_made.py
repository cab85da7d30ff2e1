"""A population of ten equally likely rows whose scores and errors are written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.validity.resplit import take
from bench.validity.truth import Outcome, outcome
from gateway.calibration.judge import Judged
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract, TensorSpec

ROWS = 10
WRONG = {"primary": [7, 9], "small": [6, 8, 9]}
"""Which rows each rung answers wrongly. Row i has a risk of i nats, and its answers a suspicion of i / 20."""


def population() -> Judged:
    x = np.arange(ROWS, dtype=np.float32)[:, None]
    answers = {name: {"probabilities": _probabilities(wrong)} for name, wrong in WRONG.items()}
    y = np.zeros(ROWS, np.int64)
    rows = CalibrationRows.classified({"x": x}, y, answers, "primary", lambda inputs: inputs)
    risk = np.arange(ROWS).astype(np.float64)
    return Judged(rows, {"ood": risk}, {"ood": risk[::-1].copy()})


def _probabilities(wrong: list[int]) -> Any:
    least = np.arange(ROWS) / 20
    chosen = np.isin(np.arange(ROWS), wrong).astype(int)
    p = np.empty((ROWS, 2), np.float32)
    p[np.arange(ROWS), chosen], p[np.arange(ROWS), 1 - chosen] = 1 - least, least
    return p


def policy(**changes: Any) -> Policy:
    """One guard that defers, and two checked rungs."""
    return Policy.model_validate(
        {
            "schema": 1,
            "name": "hand-made",
            "deadline_s": 1.0,
            "false_alarm_budget": 0.15,
            "answered_error": 0.2,
            "guards": [
                {
                    "name": "ood",
                    "kind": "ood",
                    "detectors": ["raw"],
                    "cuts": {"defer": "certified"},
                    "budget_s": 0.01,
                    "on_error": "defer",
                }
            ],
            "rungs": [_rung(name) for name in WRONG],
            "expose": ["probabilities"],
            **changes,
        }
    )


def _rung(name: str) -> dict[str, Any]:
    check = {
        "name": f"{name}_confidence",
        "kind": "confidence",
        "selective_error": 0.2,
        "budget_s": 0.01,
        "on_error": "degrade",
    }
    model = {"kind": "onnx", "path": f"{name}.onnx"}
    return {"name": name, "model": model, "budget_s": 0.01, "checks": [check]}


def calibrate(rows: int, seed: int, chosen: Policy) -> Outcome:
    """One re-split: `rows` independent rows in each of the three folds."""
    every, rng = population(), np.random.default_rng(seed)
    folds = {name: take(every, rng.integers(0, ROWS, rows)) for name in ("tail", "cut", "risk")}
    return outcome(chosen, folds, every)


def some_contract() -> Contract:
    """A contract of a model with probabilities: what is compared here is never on the wire."""
    x = TensorSpec("x", np.dtype(np.float64), (None, 1))
    return Contract("validity", (x,), (TensorSpec("probabilities", np.dtype(np.float32), (None, 2)),), 8, "1")
