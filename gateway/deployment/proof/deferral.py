"""A policy whose guards defer has people to defer to."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.decision import Verdict
from gateway.core.decision_graph import DecisionGraph, Event, StepKind
from gateway.core.graph_paths import path_through
from gateway.deployment.proof.places import Hole, path_text, places
from gateway.policy.locate import Loc
from gateway.policy.schema import Policy

FIELDS = {Event.FLAGGED: "cuts", Event.ERROR: "on_error", Event.TIMEOUT: "on_error"}
"""The field of a guard that says which verdict an event gets."""


def deferral_holes(policy: Policy, graph: DecisionGraph) -> Iterator[Hole]:
    """The fields of enforced guards that say `defer` where there is no review: their rows are refused."""
    if any(step.kind is StepKind.REVIEW for step in graph.steps):
        return
    told: set[Loc] = set()
    for at in sorted(graph.edges, key=lambda at: at.step):
        step = graph.step(at)
        for edge in graph.edges[at]:
            if not step.enforced or edge.verdict is not Verdict.DEFER:
                continue
            loc = (*places(policy)[step.name], _field(policy, step.name, edge.event))
            if loc not in told:
                told.add(loc)
                path = path_through(graph, at, edge, lambda _: True) or ()
                what = f"`{step.name}` defers, and there is no `review` with people to defer to"
                yield loc, f"{what}: {path_text(graph, path)}; add `review`, or say refuse"


def _field(policy: Policy, guard: str, event: Event) -> str:
    """`without_features` where a guard has it, for a primary that gives no answer."""
    (part,) = (one for one in policy.guards if one.name == guard)
    no_answer = "without_features" if "without_features" in type(part).model_fields else "on_error"
    return FIELDS.get(event, no_answer)
