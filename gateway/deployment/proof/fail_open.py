"""No enforced guard or check is fail-open without a written waiver.

A part is fail-open where its failure is the verdict `allow`, and an answer can leave after it. A budget is
not meant: it limits how much a caller sends, and the guards judge the rows that a broken limit lets through.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.decision import Degraded, Outcome, Served, Verdict
from gateway.core.decision_graph import DecisionGraph, Event, Path, StepKind
from gateway.core.graph_paths import path_through
from gateway.deployment.proof.places import Hole, path_text, places
from gateway.policy.schema import Policy

UNJUDGED = (Event.ERROR, Event.TIMEOUT, Event.NO_ANSWER)


def fail_open_holes(policy: Policy, graph: DecisionGraph) -> Iterator[Hole]:
    """Parts that fail open without a waiver."""
    where = places(policy)
    for name, path in fail_open(graph).items():
        if name not in policy.waivers:
            stricter = "degrade, defer or refuse" if where[name][0] == "guards" else "degrade"
            what = f"`{name}` fails open and has no waiver: {path_text(graph, path)}; say {stricter}"
            yield (*where[name], "on_error"), f"{what}, or write why it may into `waivers: {{{name}: ...}}`"


def fail_open(graph: DecisionGraph) -> dict[str, Path]:
    """The enforced guards and checks that fail open, each with a path from its failure to an answer."""
    found: dict[str, Path] = {}
    for at in sorted(graph.edges, key=lambda at: at.step):
        step = graph.step(at)
        if not step.enforced or step.kind not in (StepKind.GUARD, StepKind.CHECK):
            continue
        for edge in graph.edges[at]:
            opens = edge.event in UNJUDGED and edge.verdict is Verdict.ALLOW
            if opens and (path := path_through(graph, at, edge, _is_answer)):
                found.setdefault(step.name, path)
    return found


def failing_budgets(graph: DecisionGraph) -> set[str]:
    """The names of the enforced budgets that let rows pass where they fail."""
    return {
        graph.step(at).name
        for at, edges in graph.edges.items()
        for edge in edges
        if graph.step(at).kind is StepKind.BUDGET and graph.step(at).enforced
        if edge.event is Event.ERROR and edge.verdict is Verdict.ALLOW
    }


def _is_answer(outcome: Outcome) -> bool:
    return isinstance(outcome, Served | Degraded)
