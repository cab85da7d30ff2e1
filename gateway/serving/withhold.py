"""Holds answers back that a stop has overtaken: what was decided before it, and has not left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.core.decision import Decision, Deferred, Degraded, Reason, Refused, Served
from gateway.protocol.endings import BY_REVIEW
from gateway.serving.stops import ModelStops

STOPPED: Final = Refused(Reason.STOPPED, 60.0)
"""How every row of a stopped model ends. When it is resumed is not known: a client asks again in a minute."""
OVERTAKEN: Final = Refused(Reason.STOPPED, 1.0)
"""How a row ends that a stopped rung had answered: the next rung answers it when it is sent again."""


def withhold(decisions: list[Decision], stops: ModelStops) -> list[Decision]:
    """The decisions, with refusals in place of what may not leave now; the same list if all may.

    An answer that a reviewer gave is no rung's, and leaves.
    """
    if not (stops.why or stops.rungs):
        return decisions
    held = [_held(one, stops) for one in decisions]
    return decisions if all(one is other for one, other in zip(held, decisions, strict=True)) else held


def _held(decision: Decision, stops: ModelStops) -> Decision:
    match decision.outcome:
        case Served(by=by) | Degraded(by=by) if by != BY_REVIEW and stops.has(by):
            return decision._replace(outcome=STOPPED if stops.why else OVERTAKEN)
        case Deferred() if stops.why:
            return decision._replace(outcome=STOPPED)
        case _:
            return decision


def all_stopped(ids: Sequence[str]) -> list[Decision]:
    """The decisions on rows of a stopped model, of which none is judged."""
    return [Decision(id_, STOPPED) for id_ in ids]
