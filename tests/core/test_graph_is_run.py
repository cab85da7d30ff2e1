"""The decision graph is what runs: the pipeline, driven down its paths, ends where the graph says."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.batch import Answered, Batch
from gateway.core.brownout import stepped_down
from gateway.core.budget import BudgetStage
from gateway.core.decision import Outcome, Reason, Refused, Verdict
from gateway.core.decision_graph import DecisionGraph, Event, Path, Position, StepKind
from gateway.core.graph_paths import count_paths, first_path, longest_path, paths
from gateway.core.model import Model
from gateway.core.pipeline import AnyGuard, Pipeline, Rung
from gateway.core.pipeline_graph import decision_graph
from gateway.core.stage import FeatureStage, Stage
from gateway.protocol.endings import Ending, ending_of
from tests.core.test_laws import decide, pipelines, xs
from tests.support.scripted import (
    BUDGET_S,
    CUTS,
    Script,
    ScriptedBudget,
    ScriptedGuard,
    ScriptedModel,
    ScriptedReview,
    outcome_of,
)

MOST_PATHS = 300
verdicts = st.sampled_from(Verdict)


def stage(script: Script, name: str, cuts: list[Verdict], on_error: Verdict, enforce: bool) -> Stage[Any]:
    guard, levels = ScriptedGuard(name, script), {verdict: CUTS[verdict] for verdict in cuts}
    return Stage(name, guard, levels, Reason.ABSTAINED, BUDGET_S, on_error, enforce)


@st.composite
def guards(draw: st.DrawFn, script: Script, name: str) -> AnyGuard:
    cuts = draw(st.lists(st.sampled_from(list(CUTS)), max_size=2, unique=True))
    full: Stage[Batch] = stage(script, name, cuts, draw(verdicts), draw(st.booleans()))
    if draw(st.booleans()):
        return full
    return FeatureStage(full, "m0", draw(verdicts) if draw(st.booleans()) else full)


@st.composite
def rungs(draw: st.DrawFn, script: Script, depth: int) -> Rung:
    on_error = draw(st.sampled_from([Verdict.ALLOW, Verdict.DEGRADE]))
    checks: list[Stage[Answered]] = [
        stage(script, f"c{depth}{i}", [Verdict.DEGRADE], on_error, draw(st.booleans()))
        for i in range(draw(st.integers(0, 2)))
    ]
    model = ScriptedModel(f"m{depth}", script)
    faults = model.faults if draw(st.booleans()) else None
    return Rung(Model(f"m{depth}", model, BUDGET_S, {"y": ()}, faults), tuple(checks))


@st.composite
def scripted(draw: st.DrawFn) -> tuple[Pipeline, Script]:
    script = Script()
    budgets = tuple(
        BudgetStage(
            f"b{i}",
            ScriptedBudget(f"b{i}", script),
            1.0,
            Reason.RATE_LIMITED,
            draw(verdicts),
            draw(st.booleans()),
        )
        for i in range(draw(st.integers(0, 1)))
    )
    pipeline = Pipeline(
        "p@1#0",
        tuple(draw(guards(script, f"g{i}")) for i in range(draw(st.integers(0, 2)))),
        tuple(draw(rungs(script, depth)) for depth in range(draw(st.integers(1, 3)))),
        ScriptedReview(script) if draw(st.booleans()) else None,
        BUDGET_S,
        budgets,
    )
    return pipeline, script


def some_paths(graph: DecisionGraph, seed: int) -> list[Path]:
    """Every path, or as many drawn at random, each edge of a position as likely as another."""
    if count_paths(graph) <= MOST_PATHS:
        return list(paths(graph))
    rng, found = random.Random(seed), list[Path]()
    for _ in range(MOST_PATHS):
        at, path = graph.start, Path()
        while isinstance(at, Position):
            edge = rng.choice(graph.edges[at])
            path, at = (*path, (at, edge)), edge.target  # type: ignore[assignment]
        found.append(path)
    return found


def ends_of(graph: DecisionGraph) -> set[Ending]:
    """Every end that the graph has."""
    targets = [edge.target for edges in graph.edges.values() for edge in edges]
    return {ending_of(target) for target in targets if not isinstance(target, Position)}


@settings(max_examples=60)
@given(scripted(), st.integers(0, 2**32))
def test_the_pipeline_ends_a_row_where_the_path_of_the_graph_ends(
    parts: tuple[Pipeline, Script], seed: int
) -> None:
    pipeline, script = parts
    graph = decision_graph(pipeline)
    for path in some_paths(graph, seed):
        target = path[-1][1].target
        assert not isinstance(target, Position)
        got: Outcome = outcome_of(pipeline, script, graph, path)
        assert ending_of(got) == ending_of(target), [
            (graph.step(at).name, edge.event.value) for at, edge in path
        ]


@settings(max_examples=60)
@given(scripted(), st.integers(0, 2**32))
def test_a_row_that_steps_down_ends_where_one_does_whose_first_rung_has_an_open_circuit(
    parts: tuple[Pipeline, Script], seed: int
) -> None:
    pipeline, script = parts
    graph = decision_graph(pipeline)
    for path in some_paths(graph, seed):
        if ("m0", Event.OPEN) in [(graph.step(at).name, edge.event) for at, edge in path]:
            got = ending_of(outcome_of(stepped_down(pipeline), script, graph, path))
            assert got in ends_of_stepped_down(graph, path)


def ends_of_stepped_down(graph: DecisionGraph, path: Path) -> list[Ending]:
    """The path's own end; but what there was no room for is refused and not put into review."""
    (at, edge), unavailable = path[-1], ending_of(Refused(Reason.UNAVAILABLE))
    assert not isinstance(edge.target, Position)
    no_answer = at.row.verdict <= Verdict.DEGRADE and at.row.reason in (None, Reason.UNAVAILABLE)
    if graph.step(at).kind is not StepKind.REVIEW or not no_answer:
        return [ending_of(edge.target)]
    if edge.event is Event.DEADLINE:  # which may have passed before
        return [unavailable, ending_of(edge.target)]
    return [unavailable]


@given(pipelines(), xs)
def test_however_parts_misbehave_a_row_ends_where_a_path_of_the_graph_ends(
    pipeline: Pipeline, x: list[float]
) -> None:
    ends = ends_of(decision_graph(pipeline))
    for decision in decide(pipeline, x):
        assert ending_of(decision.outcome) in ends


@given(pipelines())
def test_a_graph_has_no_cycle_and_no_position_without_an_edge(pipeline: Pipeline) -> None:
    graph = decision_graph(pipeline)
    for at, edges in graph.edges.items():
        assert edges
        for edge in edges:
            if isinstance(edge.target, Position):
                assert edge.target.step > at.step
                assert edge.target in graph.edges


def one_guard(**fields: Any) -> Pipeline:
    """A guard that defers, two rungs, the first with a check, and a queue."""
    script = Script()
    guard = replace(stage(script, "g", [Verdict.DEFER], Verdict.DEFER, True), **fields)
    check = stage(script, "c", [Verdict.DEGRADE], Verdict.DEGRADE, True)
    models = [Model(name, ScriptedModel(name, script), BUDGET_S, {"y": ()}) for name in ("big", "small")]
    ladder = (Rung(models[0], (check,)), Rung(models[1]))
    return Pipeline("p", (FeatureStage(guard, "big", guard),), ladder, ScriptedReview(script), BUDGET_S)


def test_the_longest_path_goes_through_every_part() -> None:
    seconds, path = longest_path(decision_graph(one_guard()))
    assert seconds == 5 * BUDGET_S
    assert [at.step for at, _ in path] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        (2.0, {Event.OK, Event.FLAGGED}),
        (float("nan"), {Event.OK}),
        (float("inf"), {Event.OK}),
        (0.0, {Event.FLAGGED}),
        (float("-inf"), {Event.FLAGGED}),
    ],
)
def test_a_guard_has_the_events_that_its_cut_allows(cut: float, found: set[Event]) -> None:
    graph = decision_graph(one_guard(cuts={Verdict.DEFER: cut}, score_range=(0.0, sys.float_info.max)))
    of_guard = {e.event for at, edges in graph.edges.items() if graph.step(at).name == "g" for e in edges}
    assert of_guard - {Event.ERROR, Event.TIMEOUT, Event.DEADLINE} == found


def test_the_first_path_is_a_shortest_one() -> None:
    graph = decision_graph(one_guard())
    path = first_path(graph, graph.start, lambda at, edge: edge.event is Event.FULL)
    assert path is not None
    assert [edge.event for _, edge in path] == [Event.OK, Event.OK, Event.FLAGGED, Event.FULL]


def test_paths_are_as_many_as_they_are_counted() -> None:
    graph = decision_graph(one_guard())
    assert sum(1 for _ in paths(graph)) == count_paths(graph) > 100
