"""What a calibration prints for one policy, beside the true share over the whole population.

What is printed is decided by the gateway's own functions: `certify_guards`, `certify_ladder` and
`error_statements`. The truth counts the rows of the population, scored by the same guards and graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fallbacks.roles import VALUE
from gateway.calibration.fold_scores import absolute_errors, fold_scores, row_slices
from gateway.calibration.judge import Judged
from gateway.calibration.served import ServedRows
from gateway.core.decision import Verdict
from gateway.core.rows import Mask
from gateway.deployment.certificate import FalseAlarm
from gateway.deployment.certification.absolute_error import MeanRefused
from gateway.deployment.certification.alarms import (
    Alarms,
    BudgetRefused,
    assumed_without_primary,
    certified_guards,
    certify_guards,
    joint_risk,
    ladder_rows,
    shares,
    shifts_of,
)
from gateway.deployment.certification.ladder import AnsweredRefused, Ladder, RungRefused, certify_ladder
from gateway.deployment.certification.paths import CLOSED, NO_RUNG, LadderRows, RungIndex, RungRows
from gateway.deployment.certification.statements import ErrorStatements, error_statements
from gateway.policy.kinds.interval import one_a_row
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Promised:
    """One printed promise: at most `at_most`, a share or a mean; true: the same over the whole population."""

    what: str
    at_most: float
    true: float

    @property
    def kept(self) -> bool:
        """Whether the promise is true."""
        return self.true <= self.at_most


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one calibration came to.

    refused: what could not be certified, `budget`, `rung`, `answered` or `absolute error`; `guards: ` or
    `intervals: ` and why, where these cannot be fitted or recorded; or empty. answered: the true share of
    rows that a model answers while every one works; 0 if refused.
    """

    refused: str
    promises: tuple[Promised, ...]
    answered: float


def outcome(policy: Policy, folds: Mapping[str, Judged], population: Judged) -> Outcome:
    """Certifies a policy on judged folds `tail`, `cut` and `risk`, and measures each promise."""
    try:
        scores = {name: fold_scores(policy, judged) for name, judged in folds.items()}
        alarms = certify_guards(policy, scores["cut"])
        tail, cut, test = (ladder_rows(policy, scores[name], alarms) for name in ("tail", "cut", "risk"))
        kept = assumed_without_primary(policy, population.input_only) >= Verdict.DEFER
        ladder = certify_ladder(policy, tail.beside(cut), test, kept=kept)
    except BudgetRefused:
        return Outcome("budget", (), 0.0)
    except RungRefused:
        return Outcome("rung", (), 0.0)
    except AnsweredRefused:
        return Outcome("answered", (), 0.0)
    every = ladder_rows(policy, fold_scores(policy, population), alarms)
    served = served_by(policy, folds["risk"], test, ladder)
    try:
        errors = absolute_errors(policy, folds["risk"].rows)
        statements = error_statements(policy, ladder, test, served.while_gone, errors)
    except MeanRefused:
        return Outcome("absolute error", (), 0.0)
    everywhere = served_by(policy, population, every, ladder)
    of_guards = _of_guards(policy, alarms, population, every)
    of_errors = _of_errors(policy, statements, every, everywhere)
    of_sizes = _of_sizes(statements, population.rows, everywhere.while_gone[0])
    return Outcome("", (*of_guards, *of_errors, *of_sizes), _share(everywhere.while_gone[0] != NO_RUNG))


def ends(rows: LadderRows, cuts: Sequence[float], gone: int, assumed: Verdict) -> RungIndex:
    """Which rung answers each row while the first `gone` rungs give no answer.

    assumed: what guards without an input-only form give every row then.
    """
    if not gone:
        return rows.answered_by(cuts)
    verdicts = np.maximum(rows.without_primary, np.int8(assumed))
    silent = tuple(RungRows(np.zeros(len(verdicts)), rung.wrong) for rung in rows.rungs[:gone])
    left = replace(rows, verdicts=verdicts, rungs=silent + rows.rungs[gone:])
    return left.answered_by([CLOSED] * gone + [*cuts[gone:]])


def served_by(policy: Policy, judged: Judged, rows: LadderRows, ladder: Ladder) -> ServedRows:
    """Which rung answers each row, with every model and with the first ones gone."""
    assumed = assumed_without_primary(policy, judged.input_only)
    return ServedRows(tuple(ends(rows, ladder.cuts, d, assumed) for d in range(len(policy.rungs))))


def _of_guards(policy: Policy, alarms: Alarms, population: Judged, every: LadderRows) -> Iterator[Promised]:
    """Of good rows stopped by the guards, with the primary and without it."""
    if alarms.full is not None:
        stopped = every.verdicts > Verdict.ALLOW
        yield Promised("false alarm", alarms.full.budget, _share(stopped))
        if not all(guard.enforce for guard in certified_guards(policy)):
            yield Promised("if enforced", alarms.full.budget, _if_enforced(policy, alarms.full, population))
        if alarms.full.slices:
            worst = _worst_slice(policy, alarms.full, population, stopped, with_answer=True)
            yield Promised("worst slice", alarms.full.budget, worst)
    kept = assumed_without_primary(policy, population.input_only) >= Verdict.DEFER
    if alarms.input_only is not None and not kept:
        stopped = every.without_primary > Verdict.ALLOW
        yield Promised("without primary", alarms.input_only.budget, _share(stopped))
        if alarms.input_only.slices:
            worst = _worst_slice(policy, alarms.input_only, population, stopped, with_answer=False)
            yield Promised("worst slice without primary", alarms.input_only.budget, worst)


def _if_enforced(policy: Policy, alarm: FalseAlarm, population: Judged) -> float:
    """The share that reaches a cut of any certified guard, also of those that are only observed."""
    risks = joint_risk(population.full, shares(policy))
    assert risks is not None
    slices = row_slices(policy, population.rows, with_answer=True)
    return _share(risks - shifts_of(alarm, slices) >= alarm.cut)


def _worst_slice(
    policy: Policy, alarm: FalseAlarm, population: Judged, stopped: Mask, *, with_answer: bool
) -> float:
    """The largest share stopped in any slice that has a cut of its own; the rest is a slice as well."""
    names = row_slices(policy, population.rows, with_answer=with_answer)
    assert names is not None
    known = [value for one in alarm.slices for value in one.values]
    in_slice = [np.isin(names, one.values) if one.values else ~np.isin(names, known) for one in alarm.slices]
    return max(_share(stopped[rows]) for rows in in_slice if rows.any())


def _of_errors(
    policy: Policy, statements: ErrorStatements, every: LadderRows, served: ServedRows
) -> Iterator[Promised]:
    """Of what each rung answers, and of everything answered."""
    for depth, rung in enumerate(policy.rungs):
        if rung.name in statements.selective:
            by, wrong = served.while_gone[depth], every.rungs[depth].wrong
            assert wrong is not None
            risk = statements.selective[rung.name].risk
            yield Promised(f"selective {rung.name}", risk, _share(wrong[by == depth]))
    if statements.answered is not None:
        by = served.while_gone[0]
        yield Promised("answered", statements.answered.risk, _share(every.wrong(by)[by >= 0]))


def _of_sizes(statements: ErrorStatements, rows: CalibrationRows, by: RungIndex) -> Iterator[Promised]:
    """Of the mean absolute error of everything answered, each error clipped. by: which rung answers a row."""
    if statements.absolute is None or rows.truth is None:
        return
    clip, errors = statements.absolute.clip, np.zeros(len(rows))
    for depth, answer in enumerate(rows.answers.values()):
        off = np.abs(one_a_row(answer[VALUE]) - rows.truth)
        errors = np.where(by == depth, np.minimum(off, clip), errors)
    answered = by != NO_RUNG
    mean = float(errors[answered].mean()) if answered.any() else 0.0
    yield Promised("absolute error", statements.absolute.mean, mean)


def _share(rows: Mask) -> float:
    """The share of rows; 0 of none, of which every promise is kept."""
    return float(rows.mean()) if rows.size else 0.0
