"""Every stage of one request, each as a workload over n real rows, in the order of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from bench.micro.fixture import PRINCIPAL, MicroFixture
from bench.micro.reply_and_audit import reply_and_audit
from bench.micro.requests import binary_infer_body, json_infer_body
from bench.micro.workload import AsyncWorkload, SyncWorkload, Workload
from gateway.cli.samples import Rows
from gateway.core.batch import Answered
from gateway.core.stage import FeatureStage
from gateway.deployment.measures import INPUT_COLUMNS
from gateway.policy.kinds import AnyBudget
from gateway.policy.kinds.squeeze import SqueezePolicy
from gateway.policy.schema import Policy
from gateway.protocol.infer_request import parse_http_infer

FORWARD = "forward pass, onnxruntime alone"
WorkloadFactory: TypeAlias = Callable[[MicroFixture, int], Workload]
Workloads: TypeAlias = dict[str, WorkloadFactory]


def stages(policy: Policy) -> Workloads:
    """Workloads by the name of what they measure."""
    return {
        **_parsing(),
        **_forward(),
        **dict(_guards(policy)),
        **_judging(),
        **reply_and_audit(),
    }


def _parsing() -> Workloads:
    def binary(fixture: MicroFixture, n: int) -> Workload:
        head, body = binary_infer_body(fixture.deployment.source, fixture.served[:n])
        return SyncWorkload(lambda: parse_http_infer(body, head, fixture.contract))

    def text(fixture: MicroFixture, n: int) -> Workload:
        body = json_infer_body(fixture.deployment.source, fixture.served[:n])
        return SyncWorkload(lambda: parse_http_infer(body, None, fixture.contract))

    return {"parse JSON": text, "parse binary": binary}


def _forward() -> Workloads:
    def bare(fixture: MicroFixture, n: int) -> Workload:
        feed, names = fixture.inputs(fixture.served[:n]), [out.name for out in fixture.session.get_outputs()]
        return SyncWorkload(lambda: fixture.session.run(names, feed))

    def threaded(fixture: MicroFixture, n: int) -> Workload:
        inputs, model = (
            fixture.inputs(fixture.served[:n]),
            fixture.deployment.artifacts.models[fixture.deployment.primary],
        )
        return AsyncWorkload(lambda: model.predict(inputs))

    def bounded(fixture: MicroFixture, n: int) -> Workload:
        batch, model = fixture.batch(fixture.served[:n]), fixture.deployment.pipeline.rungs[0].model
        return AsyncWorkload(lambda: model.forward(batch.inputs, n, batch.until_s))

    return {
        FORWARD: bare,
        "forward pass through its thread": threaded,
        "the same with breaker, budget, checks of form": bounded,
    }


def _guards(policy: Policy) -> Iterator[tuple[str, WorkloadFactory]]:
    """The graphs that all guards share, then what each does beyond reading its column; first the budgets."""
    judging = [one for one in policy.guards if not isinstance(one, AnyBudget)]
    for i, budget in enumerate(one for one in policy.guards if isinstance(one, AnyBudget)):
        yield f"budget {budget.name}", _charging(i)
    yield "measured ahead, of the input", _input_graph
    yield "measured with the model's answer", _answer_graph
    for i, guard in enumerate(judging):
        if isinstance(guard, SqueezePolicy):
            yield f"guard {guard.name}, no row triggered", _scoring(i, lambda fixture: fixture.quiet)
            yield f"guard {guard.name}, all rows triggered", _scoring(i, lambda fixture: fixture.to_squeeze)
        else:
            yield f"guard {guard.name}", _scoring(i, lambda fixture: fixture.served)
    yield f"guard {judging[0].name} with budget and verdicts", _assess_first


def _charging(i: int) -> WorkloadFactory:
    """The rows of one request, charged and found to be within the budget or not."""

    def make(fixture: MicroFixture, n: int) -> Workload:
        stage = fixture.deployment.pipeline.budgets[i]
        return SyncWorkload(lambda: stage.is_within(stage.charge(PRINCIPAL, n)))

    return make


def _input_graph(fixture: MicroFixture, n: int) -> Workload:
    input_graph, feed = fixture.measures.input_graph, {"x": fixture.served[:n]}
    assert input_graph is not None
    return SyncWorkload(lambda: input_graph.run(feed))


def _answer_graph(fixture: MicroFixture, n: int) -> Workload:
    input_graph, answer_graph = fixture.measures.input_graph, fixture.measures.answer_graph
    assert input_graph is not None and answer_graph is not None
    x = fixture.served[:n]
    answer = fixture.deployment.artifacts.models[fixture.deployment.primary].run(fixture.inputs(x))
    feed = {**answer, INPUT_COLUMNS: input_graph.run({"x": x})}
    return SyncWorkload(lambda: answer_graph.run(feed))


def _scoring(i: int, rows_of: Callable[[MicroFixture], Rows]) -> WorkloadFactory:
    """One guard by itself, what all share already measured: no budget, no cut."""

    def make(fixture: MicroFixture, n: int) -> Workload:
        guard, batch = fixture.deployment.pipeline.guards[i], fixture.answered(rows_of(fixture)[:n])
        stage = guard.full if isinstance(guard, FeatureStage) else guard
        return AsyncWorkload(lambda: stage.guard.score(batch))

    return make


def _assess_first(fixture: MicroFixture, n: int) -> Workload:
    guard, batch = fixture.deployment.pipeline.guards[0], fixture.answered(fixture.served[:n])
    return AsyncWorkload(lambda: guard.assess(batch, batch.until_s))


def _judging() -> Workloads:
    def check(fixture: MicroFixture, n: int) -> Workload:
        batch = fixture.answered(fixture.served[:n])
        answer = fixture.loop.run_until_complete(batch.run(fixture.deployment.primary))
        answered, (first, *_) = Answered.of(batch, answer), fixture.deployment.pipeline.rungs[0].checks
        return AsyncWorkload(lambda: first.guard.score(answered))

    return {
        "check confidence": check,
        "pipeline.decide, no row triggered": _deciding(lambda fixture: fixture.quiet),
        "pipeline.decide, rows as they come": _deciding(lambda fixture: fixture.served),
    }


def _deciding(rows_of: Callable[[MicroFixture], Rows]) -> WorkloadFactory:
    def make(fixture: MicroFixture, n: int) -> Workload:
        batch = fixture.batch(rows_of(fixture)[:n])
        return AsyncWorkload(lambda: fixture.deployment.pipeline.decide(batch))

    return make
