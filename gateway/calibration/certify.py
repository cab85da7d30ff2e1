"""Everything that the folds decide: the fitted guards, their cuts, and the cuts of the rungs' checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.calibration.fold_scores import fold_scores
from gateway.calibration.folds import SEED, HeldOut, Progress
from gateway.calibration.intervals import fit_intervals, with_bounds
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.calibration.refusals import Refusals
from gateway.deployment.certification.alarms import Alarms, BudgetRefused
from gateway.deployment.certification.ladder import AnsweredRefused, Ladder, RungRefused
from gateway.deployment.certification.paths import LadderRows
from gateway.deployment.certification.recompute import certify_cuts
from gateway.deployment.certification.scores import FoldScores
from gateway.deployment.deployment import Deployment
from gateway.deployment.fitted import Fitted
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.queries import FittedQueries, QueriesPolicy
from gateway.policy.kinds.rows import FittingFolds


@dataclass(frozen=True, slots=True, eq=False)
class Certified:
    """What the folds decided.

    kept_rows: some of the fold `fit`; judged, scores: the folds `tail`, `cut` and `risk`; test: `risk` before
    the ladder.
    """

    fitted: Fitted
    kept_rows: KeptRows
    judged: Mapping[str, Judged]
    scores: Mapping[str, FoldScores]
    alarms: Alarms
    ladder: Ladder
    test: LadderRows


def certify(deployment: Deployment, held: HeldOut, progress: Progress) -> Certified:
    """Fits the guards and finds every cut that the rows certify.

    Raises:  PolicyError for a guard that cannot be fitted or a promise that the rows do not support;
             ValueError for a score that is no number.
    """
    policy, folds = deployment.policy, held.folds()
    refusals = Refusals(deployment, held.samples)
    intervals = fit_intervals(deployment, folds, progress)
    folds = {name: with_bounds(rows, intervals) for name, rows in folds.items()}
    fitting = FittingFolds(folds["fit"], folds["tail"], SEED)
    guards, histories = _fit(deployment, refusals, fitting, progress)
    progress("judging the held-out rows")
    measured = measures_on(folds["fit"], guards)
    judged = {name: judge(folds[name], guards, measured) for name in ("tail", "cut", "risk")}
    scores = {name: fold_scores(policy, one) for name, one in judged.items()}
    progress("certifying the cuts")
    try:
        alarms, ladder, test = certify_cuts(policy, scores["tail"], scores["cut"], scores["risk"])
    except BudgetRefused as refused:
        raise refusals.budget(refused.n) from refused
    except RungRefused as refused:
        raise refusals.rung(refused.rung, refused.surest, refused.tests) from refused
    except AnsweredRefused as refused:
        raise refusals.answered(refused.surest, refused.tests) from refused
    fitted = Fitted(held.rows.view, guards, intervals, histories)
    return Certified(fitted, KeptRows.of(folds["fit"]), judged, scores, alarms, ladder, test)


def _fit(
    deployment: Deployment, refusals: Refusals, folds: FittingFolds, progress: Progress
) -> tuple[dict[str, FittedGuard], dict[str, FittedQueries]]:
    """Guards with a certified cut, and those that judge by earlier rows."""
    guards, histories = dict[str, FittedGuard](), dict[str, FittedQueries]()
    for i, guard in enumerate(deployment.policy.guards):
        try:
            if isinstance(guard, QueriesPolicy):
                progress(f"fitting {guard.name}")
                histories[guard.name] = guard.fit(folds)
            elif guard.certified:
                progress(f"fitting {guard.name}")
                guards[guard.name] = guard.fit(folds)
        except ValueError as error:
            raise refusals.guard(i, error, len(folds.fit), len(folds.tail)) from error
    return guards, histories
