"""A decision graph as a picture (Mermaid) and as data, with positions merged from which rows end alike.

Two positions are one node if they are at the same step and each event leads both to the same node. So what is
known of a row is drawn only where it changes where the row goes, and a part that acts is not drawn where
every event leads to the same place. The end at the deadline, which every step that waits has, is drawn once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.decision import Reason, Refused
from gateway.core.decision_graph import DecisionGraph, Edge, Event, Position, Step, StepKind
from gateway.deployment.proof.places import end_text, events_text

SHAPES = {
    StepKind.BUDGET: ("[/", "/]"),
    StepKind.QUEUE: ("[(", ")]"),
    StepKind.GUARD: ("{{", "}}"),
    StepKind.MODEL: ("[", "]"),
    StepKind.CHECK: ("{{", "}}"),
    StepKind.REVIEW: ("[(", ")]"),
}
LATE = end_text(Refused(Reason.DEADLINE))


@dataclass(frozen=True, slots=True)
class Node:
    """Positions that are one. leads_to: the nodes and ends that follow, by id, each with its edges."""

    id: str
    step: Step
    leads_to: Mapping[str, tuple[Edge, ...]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Nodes, first the start, and the text of each end by its id."""

    nodes: tuple[Node, ...]
    ends: Mapping[str, str]


def drawn(graph: DecisionGraph) -> Drawing:
    """The graph with its positions merged. Cost: O(edges)."""
    nodes: dict[tuple[Any, ...], Node] = {}
    ids: dict[Position, str] = {}
    ends: dict[str, str] = {}
    for at in sorted(graph.edges, key=lambda at: -at.step):
        step, leads_to = graph.step(at), dict[str, tuple[Edge, ...]]()
        for edge in graph.edges[at]:
            if edge.event is not Event.DEADLINE:
                to = _target(edge, ids, ends)
                leads_to[to] = (*leads_to.get(to, ()), edge)
        if len(leads_to) == 1 and step.enforced:
            (ids[at],) = leads_to
            continue
        key = at.step, frozenset((to, events_text(edges)) for to, edges in leads_to.items())
        node = Node(f"{step.name.replace('-', '_')}{len(nodes)}", step, leads_to)
        ids[at] = nodes.setdefault(key, node).id
    return Drawing(tuple(reversed(nodes.values())), {id_: text for text, id_ in ends.items()})


def _target(edge: Edge, ids: dict[Position, str], ends: dict[str, str]) -> str:
    if isinstance(edge.target, Position):
        return ids[edge.target]
    return ends.setdefault(end_text(edge.target), f"end{len(ends)}")


def mermaid(drawing: Drawing) -> str:
    """The drawing as a Mermaid flow chart; a part that is only observed has a dashed border."""
    return "\n".join(_lines(drawing))


def _lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart TD"
    for node in drawing.nodes:
        left, right = SHAPES[node.step.kind]
        seconds = f"<br>{node.step.budget_s:g} s" if node.step.budget_s else ""
        yield f'    {node.id}{left}"{node.step.name}{seconds}"{right}'
    for id_, text in drawing.ends.items():
        yield f'    {id_}(["{text}"])'
    for node in drawing.nodes:
        for to, edges in node.leads_to.items():
            text = "any" if len(node.leads_to) == 1 else events_text(edges)
            yield f'    {node.id} -->|"{text}"| {to}'
    yield f'    late["any step that waits"] -.->|"deadline"| late_end(["{LATE}"])'
    if observed := [node.id for node in drawing.nodes if not node.step.enforced]:
        yield "    classDef observed stroke-dasharray: 4"
        yield f"    class {','.join(observed)} observed"


def as_data(drawing: Drawing) -> dict[str, Any]:
    """The drawing as plain data: nodes in order with what each leads to, and ends by id."""
    return {
        "nodes": [
            {
                "id": node.id,
                "step": node.step.name,
                "kind": str(node.step.kind),
                "budget_s": node.step.budget_s,
                "enforced": node.step.enforced,
                "leads_to": {to: [str(edge.event) for edge in edges] for to, edges in node.leads_to.items()},
            }
            for node in drawing.nodes
        ],
        "ends": dict(drawing.ends),
        "deadline": LATE,
    }
