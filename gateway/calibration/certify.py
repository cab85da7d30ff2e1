"""Everything that the folds decide: the fitted guards, their cuts, and the cuts of the rungs' checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.calibration.alarms import (
    Alarms,
    BudgetRefused,
    assumed_without_primary,
    certified_guards,
    certify_guards,
    ladder_rows,
)
from gateway.calibration.folds import SEED, HeldOut, Progress
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.calibration.ladder import AnsweredRefused, Ladder, RungRefused, certify_ladder
from gateway.calibration.paths import LadderRows
from gateway.calibration.refusals import Refusals
from gateway.core.decision import Verdict
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.schema import Policy


@dataclass(frozen=True, slots=True, eq=False)
class Certified:
    """What the folds decided. judged: the folds `tail`, `cut` and `risk`; test: `risk` before the ladder."""

    guards: dict[str, FittedGuard]
    judged: Mapping[str, Judged]
    alarms: Alarms
    ladder: Ladder
    test: LadderRows


def certify(deployment: Deployment, held: HeldOut, progress: Progress) -> Certified:
    """Fits the guards and finds every cut that the rows certify.

    Raises:  PolicyError for a promise that they do not support; ValueError of a guard that cannot be fitted.
    """
    policy, folds = deployment.policy, held.folds()
    refusals = Refusals(deployment, held.samples)
    guards = _fit(policy, FittingFolds(folds["fit"], folds["tail"], SEED), progress)
    progress("judging the held-out rows")
    measured = measures_on(folds["fit"], guards)
    judged = {name: judge(folds[name], guards, measured) for name in ("tail", "cut", "risk")}
    progress("certifying the false-alarm cut")
    try:
        alarms = certify_guards(policy, judged["cut"])
    except BudgetRefused as refused:
        raise refusals.budget(refused.n) from refused
    progress("certifying the confidence cuts")
    tail, cut, test = (ladder_rows(policy, judged[name], alarms) for name in ("tail", "cut", "risk"))
    try:
        kept = assumed_without_primary(policy, judged["cut"].input_only) >= Verdict.DEFER
        ladder = certify_ladder(policy, tail.beside(cut), test, kept=kept)
    except RungRefused as refused:
        raise refusals.rung(refused.rung, refused.surest) from refused
    except AnsweredRefused as refused:
        raise refusals.answered(refused.surest) from refused
    return Certified(guards, judged, alarms, ladder, test)


def _fit(policy: Policy, folds: FittingFolds, progress: Progress) -> dict[str, FittedGuard]:
    fitted: dict[str, FittedGuard] = {}
    for guard in certified_guards(policy):
        progress(f"fitting {guard.name}")
        fitted[guard.name] = guard.fit(folds)
    return fitted
