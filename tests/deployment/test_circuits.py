"""How a rung's model is called: limits of the policy, and what the breaker sees of repeated calls."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml

from fallbacks.breaker import BreakerState
from fallbacks.oip.errors import UpstreamUnreachable
from fallbacks.predictor import ModelRaised, ModelTensor, Tensors
from fallbacks.stuck import REPEATS_TO_ALARM
from gateway.core.deadline import CALL_PRINCIPALS
from gateway.deployment.artifacts import Artifacts
from gateway.deployment.circuits import breaker_of
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.schema import RungPolicy

ROW = {"x": np.zeros((1, 2), np.float32)}
FILE = "{kind: onnx, path: a.onnx}"
UPSTREAM = '{kind: oip, url: "http://triton:8000", model: m'


class Server:
    """A model whose calls end as told, then answer. Counts them."""

    inputs = (ModelTensor("x", np.dtype(np.float32), (None, 2)),)
    outputs = (
        ModelTensor("y", np.dtype(np.float32), (None, 2)),
        ModelTensor("label", np.dtype(int), (None,)),
    )

    def __init__(self, *ends: Exception) -> None:
        self.ends, self.called = list(ends), 0

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.called += 1
        if self.ends:
            raise self.ends.pop(0)
        return {"y": np.full((len(inputs["x"]), 2), 0.5, np.float32)}


def rung(model: str, more: str = "") -> RungPolicy:
    return RungPolicy.model_validate(yaml.safe_load(f"{{name: r, budget_s: 0.5, model: {model}{more}}}"))


def artifacts(server: Server, *, known: bool = False) -> Artifacts:
    """Those of one rung. known: whether the right answer to every row is another one than the server's."""
    answers = {"r": {"y": np.ones((3, 2), np.float32)}} if known else {}
    parts = SimpleNamespace(models={"r": server}, kept=KeptRows(ROW, {}), known_answers=answers)
    return cast(Artifacts, parts)


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        (f"{UPSTREAM}}}", 2),
        (f"{UPSTREAM}, retries: 0}}", 1),
        (f"{UPSTREAM}, retries: 0, hedge: true}}", 1),
        (FILE, 1),
    ],
)
def test_a_call_that_no_model_answered_is_sent_as_often_as_the_policy_of_an_upstream_says(
    model: str, calls: int
) -> None:
    async def main() -> None:
        server = Server(UpstreamUnreachable("refused"))
        breaker = breaker_of(rung(model), artifacts(server), ["y"])
        try:
            await breaker.predict(ROW)
        except UpstreamUnreachable:
            assert calls == 1
        assert server.called == calls
        assert (breaker.repeats.taken if breaker.repeats else 0) == calls - 1

    asyncio.run(main())


def test_a_row_that_an_upstream_refuses_is_sent_once() -> None:
    async def main() -> None:
        server = Server(ModelRaised("400"))
        with pytest.raises(ModelRaised):
            await breaker_of(rung(f"{UPSTREAM}, retries: 3}}"), artifacts(server), ["y"]).predict(ROW)
        assert server.called == 1

    asyncio.run(main())


def test_the_limits_of_the_circuit_are_those_of_the_policy() -> None:
    async def main() -> None:
        circuit = ", circuit: {calls: 10, least_calls: 3, failed_share: 0.25, late_share: 1.0}"
        server = Server(*[OSError("broken")] * 2)
        breaker = breaker_of(rung(FILE, circuit), artifacts(server), ["y"])
        ends: list[Any] = []
        for i in range(4):
            CALL_PRINCIPALS.set((f"caller{i}",))
            ends += await asyncio.gather(breaker.predict(ROW), return_exceptions=True)
        assert [isinstance(end, OSError) for end in ends] == [True, True, False, False]
        server.ends = [OSError("broken")]
        CALL_PRINCIPALS.set(("another",))
        with pytest.raises(OSError, match="broken"):
            await breaker.predict(ROW)
        assert breaker.state is BreakerState.OPEN, "three of five, far from five in a row"

    asyncio.run(main())


@pytest.mark.parametrize(("exposed", "found_out"), [(["y", "label"], True), (["label"], False)])
def test_exposed_outputs_of_floating_point_are_tested_for_being_stuck(
    exposed: list[str], found_out: bool
) -> None:
    async def main() -> None:
        breaker = breaker_of(rung(FILE), artifacts(Server(), known=True), exposed)
        rows = np.arange(2 * REPEATS_TO_ALARM + 2, dtype=np.float32).reshape(-1, 2)
        await asyncio.gather(breaker.predict({"x": rows}), return_exceptions=True)
        assert (breaker.state is BreakerState.OPEN) is found_out

    asyncio.run(main())
