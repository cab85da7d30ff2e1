"""Every path of one row through a pipeline, as a finite graph without cycles.

A **position** is a step of the pipeline that is about to be taken, together with all that is known of the row
there. An **edge** is one thing that can happen at that step, and leads to the next position or to an outcome.
Positions that are equal are one node, so the graph stays small where its paths are many.

`pipeline_graph.py` makes the graph of a pipeline, `graph_paths.py` walks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from gateway.core.decision import Outcome, Reason, Verdict


class Event(StrEnum):
    """What can happen at a step."""

    OK = "ok"  # within the budget, answered, below every cut, stored
    FLAGGED = "flagged"  # a score reaches a cut
    ERROR = "error"  # raised, or returned what is no answer, or no number
    TIMEOUT = "timeout"
    OPEN = "open"  # the model's circuit
    INVALID = "invalid"  # the model cannot take the row
    NO_ANSWER = "no_answer"  # a guard without input-only form, and a primary that gave none
    SHED = "shed"  # too many rows wait
    FULL = "full"  # the review queue
    OVER_QUOTA = "over_quota"  # the caller's share of the review queue
    DEADLINE = "deadline"  # the row's, at any step that waits


class StepKind(StrEnum):
    """What a step is."""

    BUDGET = "budget"
    QUEUE = "queue"
    GUARD = "guard"
    MODEL = "model"
    CHECK = "check"
    REVIEW = "review"


class PrimaryPass(StrEnum):
    """What the first rung's model made of the row."""

    ANSWERED = "answered"
    FAILED = "failed"
    INVALID = "invalid"


class RowState(NamedTuple):
    """A row so far: its most severe verdict, why, and the primary's pass while that matters."""

    verdict: Verdict = Verdict.ALLOW
    reason: Reason | None = None
    primary: PrimaryPass | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One part that a row may reach. budget_s: seconds that the part may take; enforced: whether it acts."""

    name: str
    kind: StepKind
    budget_s: float
    enforced: bool = True


class Position(NamedTuple):
    """The step that is taken next, by its index, and the row before it."""

    step: int
    row: RowState


Target: TypeAlias = Position | Outcome
"""Where an edge leads. Outcomes have no output and no ticket."""


class Edge(NamedTuple):
    """One event at a position. verdict: that of the step itself, where it gives one."""

    event: Event
    target: Target
    verdict: Verdict | None = None


Path: TypeAlias = tuple[tuple[Position, Edge], ...]
"""Positions with the edge taken at each; the last leads to an outcome if the path is whole."""


@dataclass(frozen=True, slots=True, eq=False)
class DecisionGraph:
    """All steps in their order, and the edges of every position that can be reached from `start`."""

    steps: tuple[Step, ...]
    start: Position
    edges: Mapping[Position, tuple[Edge, ...]]

    def step(self, position: Position) -> Step:
        return self.steps[position.step]
