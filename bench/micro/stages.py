"""Every stage of one request, each as a body over n real rows, in the order in which a request meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from bench.micro.body import Awaited, Body, Plain
from bench.micro.ends import ends
from bench.micro.requests import binary_body, json_body
from bench.micro.world import World
from gateway.cli.samples import Rows
from gateway.core.batch import Answered, Batch
from gateway.core.stage import FeatureStage, Stage
from gateway.deployment.measures import BEFORE
from gateway.policy.kinds.squeeze import SqueezePolicy
from gateway.policy.schema import Policy
from gateway.protocol.infer_request import parse_http_infer

FORWARD = "forward pass, onnxruntime alone"
Make: TypeAlias = Callable[[World, int], Body]
Bodies: TypeAlias = dict[str, Make]


def stages(policy: Policy) -> Bodies:
    """Bodies by the name of what they measure."""
    return {
        **_parsing(),
        **_forward(),
        **dict(_guards(policy)),
        **_judging(),
        **ends(),
    }


def _parsing() -> Bodies:
    def binary(world: World, n: int) -> Body:
        head, body = binary_body(world.opened.source, world.served[:n])
        return Plain(lambda: parse_http_infer(body, head, world.contract))

    def text(world: World, n: int) -> Body:
        body = json_body(world.opened.source, world.served[:n])
        return Plain(lambda: parse_http_infer(body, None, world.contract))

    return {"parse JSON": text, "parse binary": binary}


def _forward() -> Bodies:
    def bare(world: World, n: int) -> Body:
        feed, names = world.inputs(world.served[:n]), [out.name for out in world.session.get_outputs()]
        return Plain(lambda: world.session.run(names, feed))

    def threaded(world: World, n: int) -> Body:
        inputs, model = world.inputs(world.served[:n]), world.opened.artifacts.models[world.opened.primary]
        return Awaited(lambda: model.predict(inputs))

    def bounded(world: World, n: int) -> Body:
        batch, model = world.batch(world.served[:n]), world.opened.pipeline.rungs[0].model
        return Awaited(lambda: model.forward(batch.inputs, n, batch.until_s))

    return {
        FORWARD: bare,
        "forward pass through its thread": threaded,
        "the same with breaker, budget, checks of form": bounded,
    }


def _guards(policy: Policy) -> Iterator[tuple[str, Make]]:
    """What all guards share, then what each does beyond reading its column."""
    yield "measured ahead, of the input", _ahead
    yield "measured with the model's answer", _late
    for i, guard in enumerate(policy.guards):
        if isinstance(guard, SqueezePolicy):
            yield f"guard {guard.name}, no row triggered", _scoring(i, lambda world: world.quiet)
            yield f"guard {guard.name}, all rows triggered", _scoring(i, lambda world: world.to_squeeze)
        else:
            yield f"guard {guard.name}", _scoring(i, lambda world: world.served)
    yield f"guard {policy.guards[0].name} with budget and verdicts", _assess_first


def _ahead(world: World, n: int) -> Body:
    early, given = world.measures.input_graph, {"x": world.served[:n]}
    assert early is not None
    return Plain(lambda: early.run(given))


def _late(world: World, n: int) -> Body:
    early, late = world.measures.input_graph, world.measures.answer_graph
    assert early is not None and late is not None
    x = world.served[:n]
    answer = world.opened.artifacts.models[world.opened.primary].run(world.inputs(x))
    given = {**answer, BEFORE: early.run({"x": x})}
    return Plain(lambda: late.run(given))


def _scoring(i: int, rows_of: Callable[[World], Rows]) -> Make:
    """One guard by itself, what all share already measured: no budget, no cut."""

    def make(world: World, n: int) -> Body:
        guard, batch = world.opened.pipeline.guards[i], world.answered(rows_of(world)[:n])
        stage: Stage[Batch] = guard.full if isinstance(guard, FeatureStage) else guard
        return Awaited(lambda: stage.guard.score(batch))

    return make


def _assess_first(world: World, n: int) -> Body:
    guard, batch = world.opened.pipeline.guards[0], world.answered(world.served[:n])
    return Awaited(lambda: guard.assess(batch, batch.until_s))


def _judging() -> Bodies:
    def check(world: World, n: int) -> Body:
        batch = world.answered(world.served[:n])
        answer = world.loop.run_until_complete(batch.run(world.opened.primary))
        answered, (first, *_) = Answered.of(batch, answer), world.opened.pipeline.rungs[0].checks
        return Awaited(lambda: first.guard.score(answered))

    return {
        "check confidence": check,
        "pipeline.decide, no row triggered": _deciding(lambda world: world.quiet),
        "pipeline.decide, rows as they come": _deciding(lambda world: world.served),
    }


def _deciding(rows_of: Callable[[World], Rows]) -> Make:
    def make(world: World, n: int) -> Body:
        batch = world.batch(rows_of(world)[:n])
        return Awaited(lambda: world.opened.pipeline.decide(batch))

    return make
