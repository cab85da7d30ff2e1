"""The scores of judged rows, as they are certified and kept: what is left of a fold without its inputs."""

from __future__ import annotations

import numpy as np

from fallbacks.roles import VALUE
from gateway.calibration.judge import Judged
from gateway.calibration.wrong import wrong_answers
from gateway.core.rows import F8
from gateway.deployment.certification.paths import RungRows
from gateway.deployment.certification.scores import FoldScores, SliceNames
from gateway.deployment.slices import slice_names
from gateway.policy.kinds.interval import one_a_row
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import InputSlices, Policy, RungPolicy


def fold_scores(policy: Policy, judged: Judged) -> FoldScores:
    """What the guards and checks gave to judged rows, and which answers are wrong."""
    slices = row_slices(policy, judged.rows, with_answer=True)
    rungs = tuple(_rung_rows(policy, rung, judged.rows) for rung in policy.rungs)
    return FoldScores(len(judged.rows), judged.full, judged.input_only, slices, rungs)


def row_slices(policy: Policy, rows: CalibrationRows, *, with_answer: bool) -> SliceNames | None:
    """The slice of each row, where the policy asks for slices that can be told with or without an answer."""
    by = policy.false_alarm_by
    if by is None or not (with_answer or isinstance(by, InputSlices)):
        return None
    return slice_names(by, rows.x, rows.answers[rows.primary])


def absolute_errors(policy: Policy, rows: CalibrationRows) -> tuple[F8, ...] | None:
    """float64[n] of each rung: how far its number is from the true one; None if the policy does not ask."""
    if policy.absolute_error is None:
        return None
    assert rows.truth is not None, "the policy asks for it with task: regression alone"
    values = (one_a_row(rows.answers[rung.name][VALUE]) for rung in policy.rungs)
    return tuple(np.asarray(np.abs(value - rows.truth), np.float64) for value in values)


def _rung_rows(policy: Policy, rung: RungPolicy, rows: CalibrationRows) -> RungRows:
    check = next(iter(rung.checks), None)
    suspicion = None if check is None else check.suspicion(rows.answers[rung.name])
    return RungRows(suspicion, wrong_answers(policy, rung.name, rows))
