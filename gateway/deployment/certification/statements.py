"""The certificate's statements from counted rows: of each rung's check, and of everything answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.core.decision import Verdict
from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import F8
from gateway.deployment.certificate import Confidence, MeanError, Selective
from gateway.deployment.certification.absolute_error import absolute_error
from gateway.deployment.certification.ladder import Ladder, enforced_check
from gateway.deployment.certification.paths import NO_RUNG, OPEN, LadderRows, RungIndex
from gateway.policy.schema import Policy
from guards.selective import Counts


@dataclass(frozen=True, slots=True)
class ErrorStatements:
    """What is promised of errors, and the cuts of which nothing is promised."""

    selective: Mapping[str, Selective]
    unpromised_cuts: Mapping[str, float]
    answered: Selective | None
    absolute: MeanError | None


def error_statements(
    policy: Policy,
    ladder: Ladder,
    test: LadderRows,
    answered_by: Sequence[RungIndex],
    absolute_errors: Sequence[F8] | None,
) -> ErrorStatements:
    """The statements, with the counts of the rows as the compiled pipeline ended them.

    Args:    answered_by, absolute_errors: of the rows of `test`, as `CertifyingScores` has them.
    Raises:  ArtifactError if the pipeline ends rows otherwise than planned, so that a promise is not kept;
             MeanRefused if the rows do not support `absolute_error`.
    """
    selective: dict[str, Selective] = {}
    for depth, rung in enumerate(policy.rungs):
        check, by = enforced_check(rung), answered_by[depth]
        if check is None or not (by == depth).any():
            continue
        wrong = test.rungs[depth].wrong
        assert wrong is not None
        counts = Counts(int((by == depth).sum()), int(wrong[by == depth].sum()))
        gone = [one.name for one in policy.rungs[:depth]]
        cut, reached = ladder.own[rung.name], int(test.reached(depth).sum())
        selective[rung.name] = _selective(policy, check.selective_error, counts, reached, cut, gone)
    unpromised = {name: cut for name, cut in ladder.own.items() if name not in selective}
    by = answered_by[0]
    answered = _answered(policy, ladder, test, by)
    return ErrorStatements(selective, unpromised, answered, absolute_error(policy, absolute_errors, by))


def _answered(policy: Policy, ladder: Ladder, test: LadderRows, by: RungIndex) -> Selective | None:
    if not ladder.answered or policy.answered_error is None:
        return None
    counts = Counts(int((by != NO_RUNG).sum()), int(test.wrong(by).sum()))
    loosest = max((cut for cut in ladder.cuts if cut != OPEN), default=1.0)
    reach = int((test.verdicts <= Verdict.DEGRADE).sum())
    return _selective(policy, policy.answered_error, counts, reach, loosest, [])


def _selective(
    policy: Policy, r: float, counts: Counts, n: int, cut: float, while_gone: list[str]
) -> Selective:
    if not counts.certifies(r, policy.delta):
        what = (
            f"the pipeline answers {counts.accepted} rows and {counts.errors} of them wrongly, not as planned"
        )
        raise ArtifactError([Problem("", f"{what}: this is a defect of the gateway; please report it")])
    return Selective(
        risk=r,
        delta=policy.delta,
        cut=cut,
        n=n,
        accepted=counts.accepted,
        errors=counts.errors,
        bound=counts.bound(policy.delta),
        coverage=counts.accepted / n,
        while_gone=while_gone,
    )


def confidence(delta: float, promises: int, attempts: int, over_attempts: float) -> Confidence:
    """How sure each promise is, all together, and over all attempts on the same rows (union bounds).

    over_attempts: the sum of what each attempt may fail with.
    """
    return Confidence(
        each=1 - delta,
        promises=promises,
        together=max(0.0, 1 - promises * delta),
        attempts=attempts,
        over_attempts=max(0.0, 1 - over_attempts),
    )
