"""Slow and hung models, and callers in a hurry, take no other model's or caller's threads and places."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np

from fallbacks.breaker import Breaker, BreakerState
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import Tensors
from fallbacks.worker import STILL_WAITED_FOR, Worker
from gateway.core.deadline import now_s
from gateway.core.errors import StageFailure
from gateway.core.model import Model
from gateway.serving.repository import Repository
from tests.support.deployments import batch_of, clean_rows, run
from tests.support.several import named


class HeldSession:
    """An onnxruntime session whose runs do not end until they are let go."""

    def __init__(self, session: Any) -> None:
        self.session, self.let_go, self.entered = session, threading.Event(), threading.Event()

    def run(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.let_go.wait(60)
        return self.session.run(*arguments)


async def outcomes(repository: Repository, name: str, n: int) -> set[str]:
    """How n rows of a deployment end, one after the other."""
    rows = clean_rows(n)
    decisions = [
        decision
        for i in range(n)
        for decision in await repository.gateways[name].decide(batch_of(rows[i : i + 1], name=f"r{i}-"))
    ]
    return {type(decision.outcome).__name__ for decision in decisions}


def test_a_hung_model_of_one_deployment_takes_nothing_from_another(tmp_path: Path) -> None:
    folders = [named(tmp_path, name) for name in ("hung", "healthy")]

    async def main() -> None:
        repository = Repository.open(folders, None)
        repository.start()
        model = repository.gateways["hung"].loaded.artifacts.models["primary"]
        assert isinstance(model, OnnxModel)
        held = model._session = HeldSession(model._session)
        waiting = [asyncio.create_task(outcomes(repository, "hung", 1)) for _ in range(8)]
        try:
            assert await asyncio.to_thread(held.entered.wait, 60)
            assert await outcomes(repository, "healthy", 8) <= {"Served", "Degraded"}
            assert not any(one.done() for one in waiting), "the other deployment still hangs"
            assert all(
                breaker.state is BreakerState.CLOSED
                for breaker in repository.gateways["healthy"].loaded.breakers.values()
            )
        finally:
            held.let_go.set()
            await asyncio.gather(*waiting)
            await repository.close()

    run(main)


def test_requests_that_are_over_before_their_pass_begins_make_no_other_caller_wait() -> None:
    """A hundred callers' deadlines of a millisecond would otherwise keep the model for a hundred passes."""
    worker, let_go, ran = Worker("w"), threading.Event(), list[float]()

    class Queued:
        async def predict(self, inputs: Tensors, /) -> Tensors:
            def job() -> Tensors:
                ran.append(float(inputs["x"][0, 0]))
                assert let_go.wait(60)
                return inputs

            return await worker.call(job, lambda: None)

    async def main() -> None:
        breaker = Breaker(Queued())
        model = Model("m", breaker, 30.0, {"x": (1,)}, still_waited_for=STILL_WAITED_FOR)
        for i in range(100):
            try:
                await model.ask({"x": np.full((1, 1), float(i))}, 1, now_s() + 0.001, ("eve",))
            except StageFailure:
                pass
        let_go.set()
        await model.ask({"x": np.full((1, 1), 1000.0)}, 1, now_s() + 60.0, ("bob",))
        assert ran[-1] == 1000.0
        assert len(ran) <= 2, "at most one that had begun, and the one that is waited for"
        assert breaker.state is BreakerState.CLOSED

    run(main)
    worker.close()
