"""Paths of a decision graph: all of them, how many, a shortest one to something, the longest in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.core.decision import Outcome
from gateway.core.decision_graph import DecisionGraph, Edge, Event, Path, Position


def paths(graph: DecisionGraph) -> Iterator[Path]:
    """Every path from the start to an outcome. Their number is exponential in the number of steps."""
    open_paths: list[tuple[Position, Path]] = [(graph.start, ())]
    while open_paths:
        at, path = open_paths.pop()
        for edge in graph.edges[at]:
            if isinstance(edge.target, Position):
                open_paths.append((edge.target, (*path, (at, edge))))
            else:
                yield (*path, (at, edge))


def count_paths(graph: DecisionGraph) -> int:
    """How many paths there are. Cost: O(edges)."""
    known: dict[Position, int] = {}
    for at in reversed(_in_order(graph)):
        known[at] = sum(known[e.target] if isinstance(e.target, Position) else 1 for e in graph.edges[at])
    return known[graph.start]


def first_path(
    graph: DecisionGraph, start: Position, wanted: Callable[[Position, Edge], bool]
) -> Path | None:
    """A shortest path from `start` whose last edge is wanted; of several the first. Cost: O(edges)."""
    seen, layer = {start}, [(start, Path())]
    while layer:
        deeper: list[tuple[Position, Path]] = []
        for at, path in layer:
            for edge in graph.edges[at]:
                if wanted(at, edge):
                    return (*path, (at, edge))
                if isinstance(edge.target, Position) and edge.target not in seen:
                    seen.add(edge.target)
                    deeper.append((edge.target, (*path, (at, edge))))
        layer = deeper
    return None


def path_through(
    graph: DecisionGraph, at: Position, edge: Edge, ends: Callable[[Outcome], bool]
) -> Path | None:
    """A shortest path that takes this edge and ends in such an outcome; None if there is none."""
    before = first_path(graph, graph.start, lambda _, one: one.target == at) or ()
    if not isinstance(edge.target, Position):
        return (*before, (at, edge)) if ends(edge.target) else None
    after = first_path(
        graph, edge.target, lambda _, one: not isinstance(one.target, Position) and ends(one.target)
    )
    return None if after is None else (*before, (at, edge), *after)


def longest_path(graph: DecisionGraph) -> tuple[float, Path]:
    """The largest sum of budgets on a path to an outcome, in seconds, and such a path. Cost: O(edges)."""
    known: dict[Position, tuple[float, Path]] = {}
    for at in reversed(_in_order(graph)):
        rests = [
            (known[edge.target] if isinstance(edge.target, Position) else (0.0, ()), edge)
            for edge in graph.edges[at]
            if edge.event is not Event.DEADLINE
        ]
        (rest_s, rest), edge = max(rests, key=lambda one: one[0][0])
        known[at] = graph.step(at).budget_s + rest_s, ((at, edge), *rest)
    return known[graph.start]


def _in_order(graph: DecisionGraph) -> list[Position]:
    """Every position, none before one from which an edge leads to it: steps only lead to later steps."""
    return sorted(graph.edges, key=lambda at: at.step)
