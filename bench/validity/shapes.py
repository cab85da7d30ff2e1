"""Seven shapes of a policy, with promises about errors near the truth, so that the cuts have to work.

| shape | guards | checks |
|---|---|---|
| defers | one that defers | of both rungs |
| degrades | one that degrades | of both rungs |
| unchecked fallback | one that defers | of the first rung alone |
| two guards | one defers, one degrades, with shares | of both rungs |
| observed | one defers, one is only observed | the first rung's is only observed |
| sliced | as `defers`, with a cut for each slice (`false_alarm_by`) | of both rungs |
| answered binds | as `defers` | of both rungs, with more room than `answered_error` leaves |

Every shape is judged with and without the primary.

Promises about errors: each is a factor times the error of the rung over the whole population when it answers
everything, 0.8 (*tight*) or 1.2 (*loose*), and `answered_error` the same factor times that of the primary. A
fallback or primary whose check does not act cannot keep 0.8: there `answered_error` is 1.1 or 1.3 times what
the population gives at the loosest good cut of the checks that act. In `answered binds` each rung may err 1.5
times as often, and all together 0.8 or 1.0 times, so that `answered_error` decides the cuts. No promise is
below six errors in the rows that test it, n / 5: much less cannot be certified at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.validity.pools import Pool
from fallbacks.roles import PROBABILITIES
from gateway.deployment.certification.paths import NO_RUNG, OPEN
from gateway.policy.schema import Policy
from guards.rows import F8

BUDGETS = {0.005: "tight", 0.01: "loose", 0.02: "tight", 0.05: "loose"}
"""False-alarm budgets, each with the kind of promise about errors beside it."""
FACTORS = {"tight": 0.8, "loose": 1.2}
UNCHECKED_FACTORS = {"tight": 1.1, "loose": 1.3}
ROOMY_FACTOR, BINDING_FACTORS = 1.5, {"tight": 0.8, "loose": 1.0}
LEAST_ERRORS = 6
SHAPES = ("defers", "degrades", "unchecked fallback", "two guards", "observed", "sliced", "answered binds")


def policy_of(pool: Pool, shape: str, budget: float, n: int) -> Policy:
    """The policy of a shape for calibration files of n rows."""
    kind = BUDGETS[budget]
    least = LEAST_ERRORS / (n / 5)
    binds = shape == "answered binds"
    own = [max((ROOMY_FACTOR if binds else FACTORS[kind]) * wrong, least) for wrong in pool.wrong]
    checks = {"unchecked fallback": (True, None), "observed": (False, True)}.get(shape, (True, True))
    answered = max(BINDING_FACTORS[kind] * pool.wrong[0], least) if binds else own[0]
    if checks != (True, True):
        answered = max(UNCHECKED_FACTORS[kind] * _answered(pool, own[0], checks[0]), least)
    return Policy.model_validate(
        {
            "schema": 1,
            "name": "validity",
            "deadline_s": 1.0,
            "false_alarm_budget": budget,
            "false_alarm_by": pool.by if shape == "sliced" else None,
            "answered_error": _share(answered),
            "guards": _guards(pool, shape),
            "rungs": [
                _rung(name, error, enforce)
                for name, error, enforce in zip(pool.rows.answers, own, checks, strict=True)
            ],
            "expose": [PROBABILITIES],
        }
    )


def every_guard(pool: Pool) -> Policy:
    """A policy of all guards of a population, to fit them at once."""
    guards = [_guard(pool, name, "defer") for name in pool.guards]
    some = policy_of(pool, "defers", 0.05, 20_000)
    return some.model_copy(
        update={"guards": Policy.model_validate({**_plain(some), "guards": guards}).guards}
    )


def _plain(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(by_alias=True)


def _guards(pool: Pool, shape: str) -> list[dict[str, Any]]:
    match shape:
        case "degrades":
            return [_guard(pool, "ood", "degrade")]
        case "two guards":
            return [_guard(pool, "ood", "defer"), _guard(pool, "second", "degrade", share=0.5)]
        case "observed":
            return [_guard(pool, "ood", "defer"), _guard(pool, "observed", "defer", enforce=False)]
        case _:
            return [_guard(pool, "ood", "defer")]


def _guard(pool: Pool, name: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **pool.guards[name], "cuts": {verdict: "certified"}, "budget_s": 0.01, **more}


def _rung(name: str, error: float, enforce: bool | None) -> Mapping[str, Any]:
    check = {
        "name": f"{name}_confidence",
        "kind": "confidence",
        "selective_error": _share(error),
        "budget_s": 0.01,
        "on_error": "degrade",
        "enforce": enforce,
    }
    model = {"kind": "onnx", "path": f"{name}.onnx"}
    return {"name": name, "model": model, "budget_s": 0.01, "checks": [] if enforce is None else [check]}


def _share(error: float) -> float:
    return round(min(error, 0.99), 4)


def _answered(pool: Pool, error: float, checked: bool) -> float:
    """The share of wrong answers over all rows at the first rung's loosest good cut, or without a cut."""
    y, answers = pool.rows.y, [answer[PROBABILITIES] for answer in pool.rows.answers.values()]
    wrong = [p.argmax(1) != y for p in answers]
    suspicion = np.asarray(1 - answers[0].max(1), np.float64)
    cut = _loosest_good_cut(suspicion, wrong[0], error) if checked else OPEN
    by = np.where(suspicion < cut, 0, 1)
    assert NO_RUNG not in by
    return float(np.where(by == 0, wrong[0], wrong[1]).mean())


def _loosest_good_cut(suspicion: F8, wrong: Any, error: float) -> float:
    order = np.argsort(suspicion, kind="stable")
    good = np.flatnonzero(np.cumsum(wrong[order]) <= error * np.arange(1, len(order) + 1))
    return float(np.nextafter(suspicion[order[good[-1]]], 1)) if good.size else 0.0
