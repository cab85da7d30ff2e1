"""Steps of a graph as places of the policy, and paths as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from gateway.core.decision import VERDICT_NAMES, Outcome
from gateway.core.decision_graph import DecisionGraph, Edge, Event, Path, Position, StepKind
from gateway.policy.locate import Loc
from gateway.policy.schema import Policy
from gateway.protocol.endings import ending_of, status_of

Hole: TypeAlias = tuple[Loc, str]
"""A place of the policy, and what is wrong there."""


def places(policy: Policy) -> dict[str, Loc]:
    """Where each guard, rung and check stands in the file, by its name."""
    return dict(_places(policy))


def _places(policy: Policy) -> Iterator[tuple[str, Loc]]:
    for i, guard in enumerate(policy.guards):
        yield guard.name, ("guards", i)
    for i, rung in enumerate(policy.rungs):
        yield rung.name, ("rungs", i)
        for j, check in enumerate(rung.checks):
            yield check.name, ("rungs", i, "checks", j)


def path_text(graph: DecisionGraph, path: Path) -> str:
    """A path as `primary: ok -> ood: error (allow) -> confidence: ok -> served by primary (200)`."""
    taken = [
        f"{graph.step(at).name}: {events_text([edge])}"
        for at, edge in path
        if graph.step(at).kind is not StepKind.QUEUE
    ]
    last = path[-1][1].target
    return " -> ".join(taken if isinstance(last, Position) else [*taken, end_text(last)])


def events_text(edges: Iterable[Edge]) -> str:
    """Events of one step, with the verdict that it gives for those that are not `ok`."""
    found: dict[str, list[str]] = {}
    for edge in edges:
        verdict = None if edge.event is Event.OK else edge.verdict
        found.setdefault("" if verdict is None else f" ({VERDICT_NAMES[verdict]})", []).append(edge.event)
    return ", ".join(", ".join(events) + verdict for verdict, events in found.items())


def end_text(outcome: Outcome) -> str:
    """An end with its HTTP status: `degraded by small (200)`, `refused as abstained (422)`."""
    ending, status = ending_of(outcome), status_of(outcome).http
    match ending.outcome:
        case "served" | "degraded":
            return f"{ending.outcome} by {ending.by} ({status})"
        case "deferred":
            return f"deferred to {ending.by} ({status})"
        case _:
            return f"{ending.outcome} as {ending.reason} ({status})"
