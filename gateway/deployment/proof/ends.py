"""Every path ends in one declared outcome, by the deadline.

What the runtime adds: each part is stopped at its budget, and at the row's deadline at the latest; a row that
is still open then is refused (504), wherever it is. So the end comes by the deadline on every path, also
where parts that raise are asked again, row by row, which the sum of their budgets does not count. What is
proven here is that each step that waits has that end, and that budgets leave time for the whole path: else
a part that hangs would take the answers of those behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.decision import Outcome, Reason, Refused
from gateway.core.decision_graph import DecisionGraph, Event, Position, StepKind
from gateway.core.graph_paths import longest_path
from gateway.deployment.proof.places import Hole, end_text, path_text
from gateway.policy.schema import Policy


def unended_holes(graph: DecisionGraph) -> Iterator[Hole]:
    """Steps without an end: no edge, one that leads back or nowhere, none at the deadline, no reason."""
    for at, edges in graph.edges.items():
        step = graph.step(at)
        if not edges:
            yield (), f"`{step.name}` has no next step for a row with {at.row}"
        events = {edge.event for edge in edges}
        waits = step.kind is not StepKind.BUDGET and Event.NO_ANSWER not in events
        if waits and Event.DEADLINE not in events:
            yield (), f"`{step.name}` does not end at the deadline"
        for edge in edges:
            if isinstance(edge.target, Position):
                if edge.target.step <= at.step or edge.target not in graph.edges:
                    yield (), f"`{step.name}`: {edge.event} leads to no later step"
            elif edge.target == Refused(Reason.OK):
                yield (), f"`{step.name}`: {edge.event} refuses a row without a reason"


def late_holes(policy: Policy, graph: DecisionGraph) -> Iterator[Hole]:
    """A path whose budgets are longer than the deadline. Reading the policy sums all budgets already."""
    seconds, path = longest_path(graph)
    if seconds > policy.deadline_s + 1e-9:
        what = (
            f"{policy.deadline_s:g} s is less than the {seconds:.3f} s that the budgets of one path can take"
        )
        yield ("deadline_s",), f"{what}: {path_text(graph, path)}; make it longer, or a budget shorter"


def outcomes_of(graph: DecisionGraph) -> list[Outcome]:
    """Every outcome that an edge leads to, with repetitions."""
    targets = (edge.target for edges in graph.edges.values() for edge in edges)
    return [target for target in targets if not isinstance(target, Position)]


def ends_of(graph: DecisionGraph) -> tuple[str, ...]:
    """Every end, once, answers first."""
    order = ("served", "degraded", "deferred", "refused")
    found = {end_text(outcome) for outcome in outcomes_of(graph)}
    return tuple(sorted(found, key=lambda text: (order.index(text.split()[0]), text)))
