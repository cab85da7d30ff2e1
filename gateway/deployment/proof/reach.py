"""Every cut can be reached and passed, and every rung is asked and can answer.

A cut that is NaN, or above all scores, is a guard that never objects; one below all scores stops everything,
and whatever stands behind it is never asked.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.decision import Degraded, Served
from gateway.core.decision_graph import DecisionGraph, Event, Path, PrimaryPass, StepKind
from gateway.core.graph_paths import path_through
from gateway.core.pipeline import Pipeline
from gateway.deployment.proof.places import Hole, path_text, places
from gateway.policy.schema import Policy

CUT_AGAIN = "run `gateway calibrate`"


def reach_holes(policy: Policy, pipeline: Pipeline, graph: DecisionGraph) -> Iterator[Hole]:
    """Cuts that no score reaches or passes; if there is none of the latter, rungs that never answer."""
    where, judged = places(policy), _events(graph)
    recalling = {recall.guard for recall in pipeline.recalls}  # may act without a verdict
    for (name, form), events in judged.items():
        what = f"`{name}`" + (" without the primary's answer" if form is PrimaryPass.FAILED else "")
        if Event.FLAGGED not in events and name not in recalling:
            yield where[name], f"{what} never objects: no score reaches its cut; {CUT_AGAIN}"
        if Event.OK not in events:
            yield where[name], f"{what} stops every row: all scores reach its cut; {CUT_AGAIN}"
    if all(Event.OK in events for events in judged.values()):
        past, answering = _past(graph, pipeline.rungs[0].name), _answering(graph)
        for rung in pipeline.rungs:
            if rung.name not in answering:
                what = f"`{rung.name}` never answers: {path_text(graph, past)}; nothing leads a row to it"
                yield where[rung.name], f"{what}: take it out, or let a guard say degrade"


def _events(graph: DecisionGraph) -> dict[tuple[str, PrimaryPass | None], set[Event]]:
    """What can happen at each enforced guard and check, by its form: with the primary's answer or without."""
    found: dict[tuple[str, PrimaryPass | None], set[Event]] = {}
    for at in sorted(graph.edges, key=lambda at: at.step):
        step, events = graph.step(at), {edge.event for edge in graph.edges[at]}
        judges = step.kind in (StepKind.GUARD, StepKind.CHECK) and step.enforced
        if judges and at.row.primary is not PrimaryPass.INVALID and Event.NO_ANSWER not in events:
            found.setdefault((step.name, at.row.primary), set()).update(events)
    return found


def _answering(graph: DecisionGraph) -> set[str]:
    """The rungs that an outcome names."""
    targets = [edge.target for edges in graph.edges.values() for edge in edges]
    return {target.by for target in targets if isinstance(target, Served | Degraded)}


def _past(graph: DecisionGraph, primary: str) -> Path:
    """A shortest path of a row for which the primary gives no answer, to its end."""
    for at, edges in graph.edges.items():
        for edge in edges:
            if graph.step(at).name == primary and edge.event is Event.ERROR:
                return path_through(graph, at, edge, lambda _: True) or ()
    return ()
