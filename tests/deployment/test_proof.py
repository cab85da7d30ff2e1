"""The proof finds every planted hole, at its field and with a path that shows it, and passes what is good."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.decision import Reason, Refused
from gateway.core.decision_graph import DecisionGraph, Event, Position, StepKind
from gateway.core.graph_paths import path_through
from gateway.core.pipeline import Pipeline, ReviewRequest
from gateway.core.pipeline_graph import decision_graph
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.certificate import Certificate
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.deployment.proof import Proof, prove
from gateway.deployment.proof.ends import outcomes_of, unended_holes
from gateway.policy.schema import Policy
from gateway.protocol.endings import ending_of
from tests.deployment.test_compile import artifacts_of
from tests.support.deployments import CONFIGS, drop_queries, edit
from tests.support.holes import GOOD, HOLES, Edits, Hole
from tests.support.scripted import Script, outcome_of, scripted_like


class People:
    """A queue that is there."""

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        return [True] * len(cases)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Artifacts]]:
    """What each deployment under `configs/` was calibrated to."""
    with ExitStack() as stack:
        found = {}
        for path in CONFIGS.glob("*/gateway.yaml"):
            name = path.parent.name
            ignored = shutil.ignore_patterns("var")
            folder = shutil.copytree(path.parent, tmp_path_factory.mktemp("configs") / name, ignore=ignored)
            _, found[name] = stack.enter_context(artifacts_of(folder))
        yield found


def edited(folder: Path, config: str, edits: Edits) -> Deployment:
    """A policy of `configs/` with other text."""
    shutil.copy(CONFIGS / config / "gateway.yaml", folder)
    drop_queries(folder)
    edit(folder, *edits)
    return Deployment.read(folder)


def cut_at(certificate: Certificate, cuts: Mapping[str, float]) -> Certificate:
    """The certificate with other cuts: `false_alarm`, `without_features`, or of the check of a rung."""
    for what, value in cuts.items():
        if what in certificate.selective:
            other = certificate.selective[what].model_copy(update={"cut": value})
            update: dict[str, object] = {"selective": certificate.selective | {what: other}}
        else:
            update = {what: getattr(certificate, what).model_copy(update={"cut": value})}
        certificate = certificate.model_copy(update=update)
    return certificate


def compiled(policy: Policy, artifacts: Artifacts, cuts: Mapping[str, float]) -> Pipeline:
    """The pipeline of a policy, as it would be had it been calibrated."""
    guards = dict(artifacts.fitted.guards)
    for guard in policy.guards:
        if guard.kind == "ood" and guard.without_features == "defer":
            guards[guard.name] = replace(guards[guard.name], input_only=None)  # type: ignore[type-var]
    fitted, certificate = replace(artifacts.fitted, guards=guards), cut_at(artifacts.certificate, cuts)
    stores = Stores(People() if policy.review else None, lambda principal: None, {})
    return compile_policy(policy, replace(artifacts, fitted=fitted, certificate=certificate), stores)


def proof_of(folder: Path, artifacts: Mapping[str, Artifacts], hole: Hole) -> Proof:
    deployment = edited(folder, hole.config, hole.edits)
    if hole.deadline_s is not None:  # reading the policy would refuse it first
        policy = deployment.policy.model_copy(update={"deadline_s": hole.deadline_s})
        deployment = replace(deployment, policy=policy)
    return prove(deployment, compiled(deployment.policy, artifacts[hole.config], hole.cuts))


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_found_at_its_field_with_the_path_that_shows_it(
    tmp_path: Path, artifacts: Mapping[str, Artifacts], name: str
) -> None:
    problems = proof_of(tmp_path, artifacts, HOLES[name]).problems
    found = {problem.field: problem.what for problem in problems}
    assert found.keys() == HOLES[name].found.keys(), found
    for field, words in HOLES[name].found.items():
        assert words in found[field]
    lines = (tmp_path / "gateway.yaml").read_text().splitlines()
    for problem in problems:
        assert problem.file == str(tmp_path / "gateway.yaml")
        key = problem.field.rpartition(".")[2]
        assert key.partition("[")[0] in lines[problem.line - 1] or key[-1] == "]"


@pytest.mark.parametrize("name", GOOD)
def test_a_good_policy_is_proven(tmp_path: Path, artifacts: Mapping[str, Artifacts], name: str) -> None:
    config, edits = GOOD[name]
    proof = proof_of(tmp_path, artifacts, Hole(config, edits, {}))
    assert proof.problems == ()
    assert proof.paths > 20
    assert proof.longest_s <= 0.5


def test_there_are_enough_of_both() -> None:
    assert len(HOLES) >= 40
    assert len(GOOD) >= 13


@pytest.mark.parametrize("name", GOOD)
def test_the_compiled_policy_runs_the_graph_that_was_proven(
    tmp_path: Path, artifacts: Mapping[str, Artifacts], name: str
) -> None:
    config, edits = GOOD[name]
    script, policy = Script(), edited(tmp_path, config, edits).policy
    pipeline = scripted_like(compiled(policy, artifacts[config], {}), script)
    graph = decision_graph(pipeline)
    for at, edges in graph.edges.items():
        for edge in edges:
            path = path_through(graph, at, edge, lambda _: True)
            assert path is not None
            end = path[-1][1].target
            assert not isinstance(end, Position)
            assert ending_of(outcome_of(pipeline, script, graph, path)) == ending_of(end)


def left_open(folder: Path, artifacts: Mapping[str, Artifacts], *edits: tuple[str, str]) -> str:
    return "\n".join(proof_of(folder, artifacts, Hole("letters", edits, {})).left_open)


def test_what_is_only_observed_is_named_as_unguarded(
    tmp_path: Path, artifacts: Mapping[str, Artifacts]
) -> None:
    told = left_open(tmp_path, artifacts, ('version: "1"', 'version: "1"\nmode: observe'))
    for name in ("rate", "ood", "confidence", "small_confidence"):
        assert f"`{name}` is only observed (mode: observe): rows that it would stop pass unguarded." in told


def test_waivers_are_told_with_their_text(tmp_path: Path, artifacts: Mapping[str, Artifacts]) -> None:
    told = left_open(tmp_path, artifacts, *GOOD["a guard that fails open by a waiver"][1])
    assert "`ood` fails open, by a waiver: a demo" in told
    told = left_open(tmp_path, artifacts, *GOOD["a limit with a waiver"][1])
    assert "`rate` lets rows pass where it fails (a demo): the guards judge them." in told


def graph_of(artifacts: Mapping[str, Artifacts]) -> DecisionGraph:
    policy = Deployment.read(CONFIGS / "letters").policy
    return decision_graph(compiled(policy, artifacts["letters"], {}))


def test_a_step_without_an_end_is_found(artifacts: Mapping[str, Artifacts]) -> None:
    graph = graph_of(artifacts)
    (ood, edges), *_ = [(at, edges) for at, edges in graph.edges.items() if graph.step(at).name == "ood"]
    ok = next(edge for edge in edges if edge.event is Event.OK)
    broken = {
        "no next step": (),
        "leads to no later step": (*edges, ok._replace(target=graph.start)),
        "does not end at the deadline": tuple(e for e in edges if e.event is not Event.DEADLINE),
        "without a reason": (*edges, ok._replace(target=Refused(Reason.OK))),
    }
    assert list(unended_holes(graph)) == []
    for words, instead in broken.items():
        holes = unended_holes(replace(graph, edges={**graph.edges, ood: instead}))
        assert any("`ood`" in what and words in what for _, what in holes)


@pytest.mark.parametrize("name", [name for name, (_, edits) in GOOD.items() if "review: {" in str(edits)])
def test_without_review_a_row_is_unavailable_only_after_a_failure(
    tmp_path: Path, artifacts: Mapping[str, Artifacts], name: str
) -> None:
    config, edits = GOOD[name]
    graph = proof_of(tmp_path, artifacts, Hole(config, edits, {})).graph
    assert Refused(Reason.ABSTAINED) in outcomes_of(graph)
    for at, edges in graph.edges.items():
        for edge in edges:
            if edge.target == Refused(Reason.UNAVAILABLE) and graph.step(at).kind is not StepKind.QUEUE:
                judged = edge.event in (Event.OK, Event.FLAGGED)
                assert not judged or at.row.reason is Reason.UNAVAILABLE
                assert not isinstance(edge.target, Position)
