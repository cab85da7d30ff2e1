"""Where a row goes next: the transitions that the executor makes and that the decision graph is made of.

`pipeline.py` decides batches with these functions, and `decision_graph.py` lists every path of one row with
them too. So what `gateway check` proves of the graph is said of what runs.
"""

from __future__ import annotations

from gateway.core.decision import Deferred, Degraded, Reason, Refused, Served, Tensors, Verdict


def worst_answered(depth: int) -> Verdict:
    """The most severe verdict of a row that may have the answer of the rung at this depth, 0 the first."""
    return Verdict.DEGRADE if depth else Verdict.ALLOW


def reason_of(stage_reason: Reason, *, failed: bool) -> Reason:
    """Why a row's verdict was raised by a stage: its own reason, unless it has failed."""
    return Reason.UNAVAILABLE if failed else stage_reason


def answered(depth: int, rung: str, output: Tensors, reason: Reason | None) -> Served | Degraded:
    """The end of a row whose answer every check of the rung allows. reason: why it left a rung, if it did."""
    return Degraded(output, rung, reason or Reason.UNAVAILABLE) if depth else Served(output, rung)


def reviewed(ticket: str, reason: Reason, stored: bool | Refused) -> Deferred | Refused:
    """The end of a row that was put into the review queue. stored: what the queue says of it."""
    if isinstance(stored, Refused):
        return stored
    return Deferred(ticket, reason) if stored else Refused(Reason.UNAVAILABLE)


def unreviewed(reason: Reason | None) -> Refused:
    """The end of a row that needs review where there is none.

    A row that was judged would be judged so again: `abstained`, for which no caller tries again. Only for one
    that a failure brought here is it worth while: `unavailable`.
    """
    return Refused(reason or Reason.UNAVAILABLE)
