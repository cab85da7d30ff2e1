"""What can happen to a row at one step of a pipeline, and what the row is then.

Verdicts come from the stages themselves, reasons and ends from `transitions.py`: nothing is decided here. A
`Move` says what one event makes of a row: another state, an outcome, or that it leaves the rung.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.core.budget import BudgetStage
from gateway.core.decision import Outcome, Reason, Refused, Verdict
from gateway.core.decision_graph import Event, PrimaryPass, RowState
from gateway.core.model import Model
from gateway.core.pipeline import AnyGuard, is_enforced
from gateway.core.stage import ASSUMED_OF_INVALID, Stage
from gateway.core.transitions import reason_of, reviewed

FAILURES = (Event.ERROR, Event.TIMEOUT)
MODEL_FAILURES = (*FAILURES, Event.OPEN)


class Move(NamedTuple):
    """What an event makes of a row. leaves: the row goes on to the next rung; verdict: that of the step."""

    event: Event
    after: RowState | Outcome
    leaves: bool = False
    verdict: Verdict | None = None


def budget_moves(stage: BudgetStage, row: RowState) -> Iterator[Move]:
    """A budget ends rows itself; where it does not, an enforced one may raise the row's verdict."""
    within = math.nextafter(stage.refuse_from, -math.inf)
    for event, score in ((Event.OK, within), (Event.FLAGGED, stage.refuse_from), (Event.ERROR, math.nan)):
        verdict = Verdict(int(stage.assessment([score]).verdicts[0]))
        after = stage.outcome(score)
        if after is None:
            joined = _joined(row, verdict, stage.reason, failed=event is Event.ERROR)
            yield Move(event, joined if stage.enforce else row, verdict=verdict)
        else:
            yield Move(event, after, verdict=verdict)


def queue_moves(row: RowState) -> Iterator[Move]:
    """A row waits for its batch, unless too many do."""
    yield Move(Event.OK, row)
    yield Move(Event.SHED, Refused(Reason.UNAVAILABLE))


def primary_moves(model: Model, row: RowState) -> Iterator[Move]:
    """The first rung's model is asked once, by guards or after them; the rung uses the same answer."""
    yield Move(Event.OK, row._replace(primary=PrimaryPass.ANSWERED))
    for event in MODEL_FAILURES:
        yield Move(event, row._replace(primary=PrimaryPass.FAILED))
    if model.faults is not None:
        yield Move(Event.INVALID, row._replace(primary=PrimaryPass.INVALID))


def guard_moves(stage: AnyGuard, row: RowState) -> Iterator[Move]:
    """The verdicts of a guard, joined to the row's; a row that an enforced one refuses ends."""
    for event, verdict in _guard_verdicts(stage, row):
        failed = event not in (Event.OK, Event.FLAGGED)
        after = _joined(row, verdict, stage.reason, failed=failed) if is_enforced(stage) else row
        if after.verdict is Verdict.REFUSE:
            yield Move(event, Refused(after.reason or stage.reason), verdict=verdict)
        else:
            yield Move(event, after, verdict=verdict)


def rung_moves(model: Model, row: RowState) -> Iterator[Move]:
    """A later rung answers, or the row goes on; also where it cannot take a row that the first one can."""
    yield Move(Event.OK, row)
    for event in (*MODEL_FAILURES, *(() if model.faults is None else (Event.INVALID,))):
        yield Move(event, left(row, Reason.UNAVAILABLE), leaves=True)


def check_moves(stage: Stage[Any], row: RowState) -> Iterator[Move]:
    """A check lets the answer pass or the row go on. The first reason to go on is the row's."""
    for event, verdict in _verdicts(stage):
        if stage.enforce and verdict > Verdict.ALLOW:
            yield Move(event, left(row, stage.reason), leaves=True, verdict=verdict)
        else:
            yield Move(event, row, verdict=verdict)


def review_moves(row: RowState) -> Iterator[Move]:
    """The queue stores the row, or it is refused."""
    reason = row.reason or Reason.UNAVAILABLE
    yield Move(Event.OK, reviewed("", reason, True))
    yield Move(Event.OVER_QUOTA, reviewed("", reason, Refused(Reason.RATE_LIMITED)))
    for event in (Event.FULL, *FAILURES):
        yield Move(event, reviewed("", reason, False))


def left(row: RowState, reason: Reason) -> RowState:
    """A row that goes on to the next rung. The first reason for it stays."""
    return row._replace(reason=row.reason or reason)


def _joined(row: RowState, verdict: Verdict, reason: Reason, *, failed: bool) -> RowState:
    if verdict <= row.verdict:
        return row
    return row._replace(verdict=verdict, reason=reason_of(reason, failed=failed))


def _guard_verdicts(stage: AnyGuard, row: RowState) -> Iterator[tuple[Event, Verdict]]:
    if isinstance(stage, Stage):
        yield from _verdicts(stage)
    elif row.primary is PrimaryPass.ANSWERED:
        yield from _verdicts(stage.full)
    elif isinstance(stage.without_features, Stage):
        yield from _verdicts(stage.without_features)
    else:
        invalid = row.primary is PrimaryPass.INVALID
        yield Event.NO_ANSWER, ASSUMED_OF_INVALID if invalid else stage.without_features


def _verdicts(stage: Stage[Any]) -> Iterator[tuple[Event, Verdict]]:
    for verdict in stage.possible_verdicts():
        yield Event.FLAGGED if verdict > Verdict.ALLOW else Event.OK, verdict
    for event in FAILURES:
        yield event, stage.on_error
