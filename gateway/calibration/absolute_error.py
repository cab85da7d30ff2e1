"""The certified absolute error of a regressor's answers, over everything answered while every model works.

Each error counts at most `clip`, so that its mean can be bounded from above (`guards/mean_bound.py`). The
rows of the fold `risk` are in the order of a seeded permutation, which does not depend on their values.
"""

from __future__ import annotations

import numpy as np

from fallbacks.roles import VALUE
from gateway.calibration.paths import NO_RUNG, RungIndex
from gateway.core.rows import F8
from gateway.deployment.certificate import MeanError
from gateway.policy.kinds.interval import one_a_row
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from guards.mean_bound import upper_mean_bound


class MeanRefused(Exception):
    """The rows do not support `absolute_error`.

    n: the answers that test it; average: of their errors, each at most `clip`; bound: the mean they support.
    """

    def __init__(self, n: int, average: float, bound: float) -> None:
        super().__init__("absolute_error")
        self.n, self.average, self.bound = n, average, bound


def absolute_error(policy: Policy, rows: CalibrationRows, by: RungIndex) -> MeanError | None:
    """The statement, if the policy asks for it. by: the rung that answers each row.

    Raises:  MeanRefused if the rows do not support it.
    """
    limit = policy.absolute_error
    if limit is None:
        return None
    errors = np.minimum(_errors(rows, by), limit.clip)
    bound = limit.clip * upper_mean_bound(errors / limit.clip, policy.delta)
    average = float(errors.mean()) if len(errors) else 0.0
    if bound > limit.mean:
        raise MeanRefused(len(errors), average, bound)
    return MeanError(
        mean=limit.mean, clip=limit.clip, delta=policy.delta, n=len(errors), average=average, bound=bound
    )


def _errors(rows: CalibrationRows, by: RungIndex) -> F8:
    """float64[answered], the absolute error of what each answered row gets, in the order of the rows."""
    assert rows.truth is not None, "the policy asks for it with task: regression alone"
    values = np.zeros(len(rows))
    for depth, answer in enumerate(rows.answers.values()):
        values = np.where(by == depth, one_a_row(answer[VALUE]), values)
    return np.asarray(np.abs(values - rows.truth)[by != NO_RUNG], np.float64)
