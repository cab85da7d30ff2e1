"""The prediction intervals of every rung that checks them, and rows whose answers have them.

They are fitted on the fold `fit`, scaled on `tail` and `cut`, and certified on `risk`, as every cut is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.calibration.folds import Progress
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.deployment.interval_model import interval_check
from gateway.policy.kinds.interval import FittedInterval
from gateway.policy.kinds.rows import CalibrationRows
from guards.row_view import TABLE


def fit_intervals(
    deployment: Deployment, folds: Mapping[str, CalibrationRows], progress: Progress
) -> dict[str, FittedInterval]:
    """The intervals by rung. Raises PolicyError naming the check whose rows do not suffice."""
    fitted: dict[str, FittedInterval] = {}
    pilot, tests = folds["tail"].beside(folds["cut"]), len(folds["risk"])
    for i, rung in enumerate(deployment.policy.rungs):
        check = interval_check(rung)
        if check is None:
            continue
        progress(f"fitting the intervals of {rung.name}")
        try:
            fitted[rung.name] = check.fit(rung.name, folds["fit"], pilot, deployment.policy.delta, tests)
        except ValueError as error:
            at = ("rungs", i, "checks", 0, "selective_error")
            raise PolicyError([deployment.problem(at, f"cannot be certified: {error}")]) from error
    return fitted


def with_bounds(rows: CalibrationRows, intervals: Mapping[str, FittedInterval]) -> CalibrationRows:
    """The rows with `lower` and `upper` among the answers of the rungs that have intervals."""
    if not intervals:
        return rows
    table = rows.view.arrays(rows.x).get(TABLE)
    answers = {
        name: intervals[name].with_bounds(table, answer) if name in intervals else answer
        for name, answer in rows.answers.items()
    }
    return replace(rows, answers=answers)
