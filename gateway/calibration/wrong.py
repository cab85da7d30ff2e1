"""Which answers of a rung are wrong, by the task of the policy."""

from __future__ import annotations

from typing import assert_never

import numpy as np

from fallbacks.roles import LABEL, LOWER, PROBABILITIES, UPPER
from gateway.core.rows import Mask
from gateway.policy.kinds.interval import one_a_row
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy


def wrong_answers(policy: Policy, rung: str, rows: CalibrationRows) -> Mask | None:
    """bool[n]; None where that cannot be told.

    A class is wrong if the likeliest one, or the one that an exposed `label` names, is not the true one; a
    number if its interval does not hold the true value.
    """
    answer = rows.answers[rung]
    match policy.task:
        case "opaque":
            return None
        case "regression":
            if rows.truth is None or LOWER not in answer or UPPER not in answer:
                return None
            below, above = rows.truth < one_a_row(answer[LOWER]), rows.truth > one_a_row(answer[UPPER])
            return np.asarray(below | above)
        case "classification":
            return _wrong_classes(policy, rung, rows)
        case _:
            assert_never(policy.task)


def _wrong_classes(policy: Policy, rung: str, rows: CalibrationRows) -> Mask | None:
    p, labelled = rows.answers[rung].get(PROBABILITIES), rows.labelled.get(rung)
    found = []
    if p is not None and p.ndim == 2:
        found.append(p.argmax(axis=1) != rows.y)
    if labelled is not None and (LABEL in policy.expose or not found):
        found.append(labelled != rows.y)
    return np.asarray(np.logical_or.reduce(found)) if found else None
