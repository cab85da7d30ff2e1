"""Budgets: what a row costs its caller, charged before the row waits for anything.

A budget needs to know of a row only whose it is. So its rows are charged as soon as they are parsed, and what
it refuses takes no place in a queue, a batch or a model's pass: the rows of other callers never wait behind
refused ones.

    rows ──> every budget ──┬─ refuse, enforced ──> Refused, with the wait that the budget states
                            └─ all others ────────> the batch, with what the budgets found

The first row of a request is charged before its body is read, the others once it is known how many there
are. So a caller that is over a budget is refused unread: what is refused costs less than what is answered.

Every row is charged to every budget, in the policy's order, so that the order of two budgets changes neither
what is charged nor which rows are refused.

Some budgets have another price in the end (`SettledBudget`): what a row tells its caller is known once it is
decided. Each is told once a request how the rows that it admitted have ended (`settle`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from gateway.core.assessment import Assessment, Findings, Trail, allowed
from gateway.core.decision import Decision, Reason, Refused, Verdict
from gateway.core.rows import row_indices

if TYPE_CHECKING:
    from gateway.core.batch import Batch

log = logging.getLogger(__name__)


class Budget(Protocol):
    """Charges rows to their callers. Knows no threshold. Must not wait: it is called on the event loop."""

    def charge(self, principal: str, rows: int, /) -> list[float]:
        """One number a row, in order; larger = further over the budget. May raise."""
        ...


@runtime_checkable
class SettledBudget(Budget, Protocol):
    """A budget that learns how its rows have ended. Must not wait."""

    def settle_rows(self, principal: str, ends: Sequence[Decision | None], repeats: int, /) -> None:
        """Adjusts what rows of one caller have cost, that `charge` admitted. May raise.

        Args:    ends: one a row; None for one whose caller has given up; without those that only repeat what
                 the caller was told before, of which there are `repeats` more.
        """
        ...


@dataclass(slots=True, eq=False)
class BudgetStage:
    """A budget and its policy.

    refuse_from: the score from which a row is refused; on_error: the verdict where the budget raises or
    returns no number; retry_scale_s: seconds to wait for each unit of score over `refuse_from`. settled: the
    same budget, if its rows have another price in the end.
    """

    name: str
    budget: Budget
    refuse_from: float
    reason: Reason
    on_error: Verdict
    enforce: bool = True
    retry_scale_s: float | None = None
    settled: SettledBudget | None = field(default=None, init=False)
    _failed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.settled = self.budget if isinstance(self.budget, SettledBudget) else None

    def assessment(self, scores: Sequence[float]) -> Assessment:
        """What was found for rows of these scores, as columns. Cost: 5 us a batch."""
        columns, n = np.array(scores, np.float64), len(scores)
        if self.is_within(scores):
            return Assessment(self.name, columns, allowed(n), True, self.enforce, 0.0)
        verdicts = np.where(columns >= self.refuse_from, np.int8(Verdict.REFUSE), np.int8(Verdict.ALLOW))
        failed = ~(columns > -np.inf)  # NaN too
        verdicts[failed], columns[failed] = self.on_error, np.nan
        errors = dict.fromkeys(np.flatnonzero(failed).tolist(), f"{self.name}: it has not charged the row")
        return Assessment(self.name, columns, verdicts, False, self.enforce, 0.0, errors)

    def outcome(self, score: float) -> Refused | None:
        """How a row of this score ends; None if it goes on."""
        if not self.enforce:
            return None
        if not score > -math.inf:  # NaN too
            return Refused(Reason.UNAVAILABLE) if self.on_error is Verdict.REFUSE else None
        if score < self.refuse_from:
            return None
        if self.retry_scale_s is None or score == math.inf:
            return Refused(self.reason)
        return Refused(self.reason, (score - self.refuse_from) * self.retry_scale_s)

    def is_within(self, scores: Sequence[float]) -> bool:
        """Whether every score is a number under `refuse_from`."""
        for score in scores:  # noqa: SIM110 - a generator costs more than most requests have rows
            if not -math.inf < score < self.refuse_from:  # NaN too
                return False
        return True

    def charge(self, principal: str, rows: int) -> list[float]:
        """A score for each row of one caller; NaN where the budget fails, which is logged the first time."""
        try:
            scores = list(map(float, self.budget.charge(principal, rows)))
            if len(scores) != rows:
                raise ValueError(f"{len(scores)} scores for {rows} rows")
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # libraries call `sys.exit` as well
            if self._is_first_failure():
                log.error("%s: rows are not charged, and `on_error` applies", self.name, exc_info=error)
            return [math.nan] * rows
        return scores

    def settle(self, principal: str, scores: Sequence[float], decisions: Sequence[Decision | None]) -> None:
        """Tells the budget how the rows of one caller have ended that it admitted, if it wants to know."""
        if self.settled is None:
            return
        admitted = [
            decision
            for score, decision in zip(scores, decisions, strict=True)
            if -math.inf < score < self.refuse_from  # NaN is not
        ]
        ends = [one for one in admitted if one is None or not one.repeats]
        try:
            if admitted:
                self.settled.settle_rows(principal, ends, len(admitted) - len(ends))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if self._is_first_failure():
                log.error("%s: rows keep their price of admission", self.name, exc_info=error)

    def _is_first_failure(self) -> bool:
        failed, self._failed = self._failed, True
        return not failed


Charges: TypeAlias = list[tuple[BudgetStage, list[float]]]
"""Each budget, with its score of each row."""


class _Refusals(NamedTuple):
    """The decisions on refused rows, None for the others; and what the budgets found for them."""

    decisions: list[Decision | None]
    trail: Trail


class Admission(NamedTuple):
    """What becomes of the rows of one request of which a budget refuses some.

    admitted: the rows that go on, None if none do. decisions: one a row, in order, None for those that go on.
    trail: what the budgets found for the refused rows.
    """

    admitted: Batch | None
    decisions: list[Decision | None]
    trail: Trail


def charge_first_row(budgets: Sequence[BudgetStage], principal: str) -> Charges:
    """What each budget finds for the first row of a request, before its body is read.

    Cost:    1 us, beside that of the budgets.
    """
    return [(stage, stage.charge(principal, 1)) for stage in budgets]


def refused_unread(charges: Charges, id_: str, policy: str) -> Decision | None:
    """The decision on a request of which a budget refuses the first row; None if its body is to be read.

    No other row would be within that budget either. How many there are is not known: it counts as one.
    """
    refusals = _refusals(charges, (id_,), policy)
    return None if refusals is None else refusals.decisions[0]


def admit(budgets: Sequence[BudgetStage], batch: Batch, policy: str) -> Admission | None:
    """Charges the rows of one request, which are one caller's; None if all of them are admitted.

    Its first row may be in `charges` already, if no budget refused it (`refused_unread`). What the budgets
    found is added to the batch that goes on.
    Cost:    1 us, beside that of the budgets.
    """
    principal, rows, charges = batch.principals[0], len(batch.ids), batch.charges
    if not charges or [stage for stage, _ in charges] != list(budgets):  # a reload has brought others
        charges[:] = [(stage, []) for stage in budgets]
    elif rows == len(charges[0][1]):
        return None  # all of them were charged with the head, and none was refused then
    for stage, scores in charges:
        if rows > len(scores):
            scores.extend(stage.charge(principal, rows - len(scores)))
    refusals = _refusals(charges, batch.ids, policy)
    if refusals is None:
        return None
    others = np.array([row for row, one in enumerate(refusals.decisions) if one is None], np.intp)
    return Admission(batch.take(others) if others.size else None, *refusals)


def settle(batch: Batch, decisions: Sequence[Decision] | None) -> None:
    """Tells each budget how the rows of one request have ended; None: its caller gave up. Never raises.

    To be called once for rows that went through `admit`, those that it refused included.
    """
    ends = decisions if decisions is not None else [None] * len(batch.ids)
    for stage, scores in batch.charges:
        stage.settle(batch.principals[0], scores, ends)


def _refusals(charges: Charges, ids: Sequence[str], policy: str) -> _Refusals | None:
    """What the budgets refuse of these rows, each for the first that does; None if nothing."""
    ends: dict[int, Refused] = {}
    for stage, scores in charges:
        if stage.is_within(scores):
            continue
        for row, score in enumerate(scores):
            if (refused := stage.outcome(score)) is not None:
                ends.setdefault(row, refused)
    if not ends:
        return None
    rows = sorted(ends)
    at = row_indices(len(rows))
    trail = [(at, stage.assessment([scores[row] for row in rows])) for stage, scores in charges]
    decisions: list[Decision | None] = [None] * len(ids)
    for i, row in enumerate(rows):
        decisions[row] = Decision(ids[row], ends[row], Findings(trail, i), policy)
    return _Refusals(decisions, trail)
