"""The certified confidence cut of every rung, and the certified error of all rungs together."""

from __future__ import annotations

import numpy as np

from gateway.core.rows import F8, Mask
from gateway.deployment.certificate import Selective
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from guards.selective import Acceptance, certified_acceptance, clopper_pearson_upper

COVERAGES = tuple(i / 200 for i in range(8, 201))
"""The shares of rows at which a cut is tried, from the strictest outward."""


def certify_ladder(
    policy: Policy, rows: CalibrationRows, passed: Mask, passed_input_only: Mask
) -> tuple[dict[str, Selective], Selective | None]:
    """The certified cut of every rung that has a check, and the statement about all rungs together.

    Args:    passed, passed_input_only: bool[n], the rows that the guards allow, in either form.
    Raises:  ValueError if a rung cannot be certified, with the number of rows that suffices.

    The first rung is certified on what the guards let pass. A later rung is certified twice: as
    the substitute of a failed primary, on the rows that the input-only form lets pass; and on the rows that
    the rungs before it rejected, so that of everything answered at most `answered_error` is wrong. The
    stricter cut applies in both cases: otherwise a more suspicious row could end better.
    """
    certified: dict[str, Selective] = {}
    answered: Selective | None = None
    accepted, wrong = np.zeros(len(rows), bool), np.zeros(len(rows), bool)  # by the rungs so far
    for depth, rung in enumerate(policy.rungs):
        check = next(iter(rung.checks), None)
        if check is None:
            continue
        answer = rows.answers[rung.name]
        suspicion, errors = check.suspicion(answer), answer["probabilities"].argmax(axis=1) != rows.y
        reached = passed_input_only if depth else passed
        alone = certified_acceptance(
            suspicion[reached], errors[reached], check.selective_error, policy.delta, COVERAGES
        )
        joint_suspicion = np.where(accepted, -1.0, suspicion)[passed]
        joint_errors = np.where(accepted, wrong, errors)[passed]
        joint = certified_acceptance(
            joint_suspicion, joint_errors, policy.answered_error, policy.delta, COVERAGES
        )
        cut = min(alone.cut, joint.cut)
        certified[rung.name] = _at_cut(alone, suspicion[reached], errors[reached], cut)
        answered = _at_cut(joint, joint_suspicion, joint_errors, cut)
        wrong |= errors & ~accepted & (suspicion < cut)
        accepted |= suspicion < cut
    return certified, answered


def _at_cut(acceptance: Acceptance, suspicion: F8, wrong: Mask, cut: float) -> Selective:
    """A certified acceptance at a cut that may be stricter than its own.

    A stricter cut errs no more often (an assumption of `guards.selective`), so the looser cut's bound holds.
    """
    below = suspicion < cut
    accepted, errors = int(below.sum()), int(wrong[below].sum())
    return Selective(
        risk=acceptance.r,
        delta=acceptance.delta,
        cut=cut,
        n=acceptance.n,
        accepted=accepted,
        errors=errors,
        bound=min(acceptance.bound, clopper_pearson_upper(errors, accepted, acceptance.delta)),
        coverage=accepted / acceptance.n,
    )
