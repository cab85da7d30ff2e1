"""Everything that the folds decide: the fitted guards, their cuts, and the cuts of the rungs' checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.calibration.alarms import (
    Alarms,
    BudgetRefused,
    assumed_without_primary,
    certify_guards,
    ladder_rows,
)
from gateway.calibration.folds import SEED, HeldOut, Progress
from gateway.calibration.intervals import fit_intervals, with_bounds
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.calibration.ladder import AnsweredRefused, Ladder, RungRefused, certify_ladder
from gateway.calibration.paths import LadderRows
from gateway.calibration.refusals import Refusals
from gateway.core.decision import Verdict
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import Fitted
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import FittingFolds


@dataclass(frozen=True, slots=True, eq=False)
class Certified:
    """What the folds decided.

    kept_rows: some of the fold `fit`; judged: the folds `tail`, `cut` and `risk`; test: `risk` before the
    ladder; kept: whether every row is kept from the fallbacks while the primary is gone.
    """

    fitted: Fitted
    kept_rows: KeptRows
    judged: Mapping[str, Judged]
    alarms: Alarms
    ladder: Ladder
    test: LadderRows
    kept: bool


def certify(deployment: Deployment, held: HeldOut, progress: Progress) -> Certified:
    """Fits the guards and finds every cut that the rows certify.

    Raises:  PolicyError for a guard that cannot be fitted or a promise that the rows do not support;
             ValueError for a score that is no number.
    """
    policy, folds = deployment.policy, held.folds()
    refusals = Refusals(deployment, held.samples)
    intervals = fit_intervals(deployment, folds, progress)
    folds = {name: with_bounds(rows, intervals) for name, rows in folds.items()}
    guards = _fit(deployment, refusals, FittingFolds(folds["fit"], folds["tail"], SEED), progress)
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
    kept = assumed_without_primary(policy, judged["cut"].input_only) >= Verdict.DEFER
    try:
        ladder = certify_ladder(policy, tail.beside(cut), test, kept=kept)
    except RungRefused as refused:
        raise refusals.rung(refused.rung, refused.surest, refused.tests) from refused
    except AnsweredRefused as refused:
        raise refusals.answered(refused.surest, refused.tests) from refused
    fitted = Fitted(held.rows.view, guards, intervals)
    return Certified(fitted, KeptRows.of(folds["fit"]), judged, alarms, ladder, test, kept)


def _fit(
    deployment: Deployment, refusals: Refusals, folds: FittingFolds, progress: Progress
) -> dict[str, FittedGuard]:
    fitted: dict[str, FittedGuard] = {}
    for i, guard in enumerate(deployment.policy.guards):
        if guard.certified:
            progress(f"fitting {guard.name}")
            try:
                fitted[guard.name] = guard.fit(folds)
            except ValueError as error:
                raise refusals.guard(i, error, len(folds.fit), len(folds.tail)) from error
    return fitted
