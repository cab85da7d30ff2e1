"""The certified absolute error of a regressor's answers, over everything answered while every model works.

Each error counts at most `clip`, so that its mean can be bounded from above (`guards/mean_bound.py`). The
rows of the fold `risk` are in the order of a seeded permutation, which does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gateway.core.rows import F8
from gateway.deployment.certificate import MeanError
from gateway.deployment.certification.paths import NO_RUNG, RungIndex
from gateway.policy.schema import Policy
from guards.mean_bound import upper_mean_bound


class MeanRefused(Exception):
    """The rows do not support `absolute_error`.

    n: the answers that test it; average: of their errors, each at most `clip`; bound: the mean they support.
    """

    def __init__(self, n: int, average: float, bound: float) -> None:
        super().__init__("absolute_error")
        self.n, self.average, self.bound = n, average, bound


def absolute_error(policy: Policy, by_rung: Sequence[F8] | None, by: RungIndex) -> MeanError | None:
    """The statement, if the policy asks for it.

    Args:    by_rung: float64[n], the absolute error of each rung's answer; by: the rung that answers
             each row.
    Raises:  MeanRefused if the rows do not support it.
    """
    limit = policy.absolute_error
    if limit is None:
        return None
    assert by_rung is not None, "kept where the policy asks for it"
    errors = np.minimum(_answered(by_rung, by), limit.clip)
    bound = limit.clip * upper_mean_bound(errors / limit.clip, policy.delta)
    average = float(errors.mean()) if len(errors) else 0.0
    if bound > limit.mean:
        raise MeanRefused(len(errors), average, bound)
    return MeanError(
        mean=limit.mean, clip=limit.clip, delta=policy.delta, n=len(errors), average=average, bound=bound
    )


def _answered(by_rung: Sequence[F8], by: RungIndex) -> F8:
    """float64[answered], the absolute error of what each answered row gets, in the order of the rows."""
    errors = np.zeros(len(by))
    for depth, one in enumerate(by_rung):
        errors = np.where(by == depth, one, errors)
    return np.asarray(errors[by != NO_RUNG], np.float64)
