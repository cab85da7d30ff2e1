"""Five shapes of a regression policy, each with promises of 5, 10 and 20 % of answers whose interval misses.

| shape | rungs | the widest interval that may leave |
|---|---|---|
| any width | one | any |
| absolute width | one | a number |
| relative width | one | a share of the value |
| two rungs | two | a number for the first, any for the second |
| absolute error | one, with a promise about the mean error | any |

Policies of one population have a guard that defers, with a false-alarm budget of 5 %, the others none.
`answered_error` is the promise of the checks. The widest interval is the one below which 60 % of the
population lie in one calibration of 10,000 rows (`Limits`). The promised mean error is 0.95, 1.1 or 1.3 times
that of the primary over the whole population: at 0.95 nearly no calibration may certify it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fallbacks.roles import VALUE
from gateway.policy.schema import Policy

RUNGS = ("primary", "small")
FALSE_ALARM_BUDGET = 0.05
ABSOLUTE_FACTORS = {0.05: 0.95, 0.1: 1.1, 0.2: 1.3}
"""The promises of the checks, each with the factor of the promised mean error beside it."""
REGRESSION_SHAPES = ("any width", "absolute width", "relative width", "two rungs", "absolute error")
FITTED_TOGETHER = {
    "any width": ("any width", "absolute error"),
    "two rungs": ("absolute width", "two rungs"),
    "relative width": ("relative width",),
}
"""The shapes that have the same intervals, by the one whose rungs have all of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What policies of a population promise beside errors. widest, relative: by the promise of the checks.

    error: the primary's mean absolute error, where each counts `clip` at most.
    """

    widest: Mapping[float, float]
    relative: Mapping[float, float]
    error: float
    clip: float


GUARD: Mapping[str, Any] = {
    "name": "ood",
    "kind": "ood",
    "detectors": ["raw"],
    "cuts": {"defer": "certified"},
    "budget_s": 0.01,
    "on_error": "defer",
}
NO_LIMITS = Limits({}, {}, 1.0, 2.0)


def regression_policy(shape: str, r: float, limits: Limits, *, guarded: bool) -> Policy:
    """The policy of a shape whose checks promise r, with a guard or without."""
    widest: Mapping[str, Any] = {
        "absolute width": {"max_width": limits.widest.get(r)},
        "two rungs": {"max_width": limits.widest.get(r)},
        "relative width": {"max_width": {"relative": limits.relative.get(r)}},
    }
    names = RUNGS if shape == "two rungs" else RUNGS[:1]
    rungs = [_rung(name, r, widest.get(shape, {}) if name == RUNGS[0] else {}) for name in names]
    mean = {"mean": round(ABSOLUTE_FACTORS[r] * limits.error, 4), "clip": limits.clip}
    return _policy(r, rungs, mean if shape == "absolute error" else None, [GUARD] if guarded else [])


def _policy(
    r: float,
    rungs: Sequence[Mapping[str, Any]],
    absolute_error: Mapping[str, float] | None,
    guards: Sequence[Mapping[str, Any]],
) -> Policy:
    return Policy.model_validate(
        {
            "schema": 1,
            "name": "validity",
            "task": "regression",
            "deadline_s": 1.0,
            "false_alarm_budget": FALSE_ALARM_BUDGET,
            "answered_error": r,
            "absolute_error": absolute_error,
            "guards": guards,
            "rungs": rungs,
            "expose": [VALUE],
        }
    )


def _rung(name: str, r: float, widest: Mapping[str, Any]) -> Mapping[str, Any]:
    check = {
        "name": f"{name}_width",
        "kind": "interval",
        "selective_error": r,
        "budget_s": 0.01,
        "on_error": "degrade",
        **widest,
    }
    model = {"kind": "onnx", "path": f"{name}.onnx"}
    return {"name": name, "model": model, "budget_s": 0.01, "checks": [check]}
