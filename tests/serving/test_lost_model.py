"""A row on which native code does not come back: it fails alone, and in the end the replica says so."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from fallbacks import worker_with_spares
from fallbacks.breaker import BreakerState
from fallbacks.onnx import OnnxModel
from fallbacks.worker_with_spares import MOST_GIVEN_UP
from gateway.grpc.methods import HEALTH
from tests.support.data_planes import PlaneFixture, keys_for, plane_of
from tests.support.deployments import FULL_RATE, letters
from tests.support.grpc_client import grpc_client

POISON = 1.25
"""The first attribute of a row on which the session below does not come back."""


class DeafSession:
    """An onnxruntime session that hangs on one row, whatever it is asked to do, until it is let go."""

    def __init__(self, session: Any) -> None:
        self.session, self.let_go = session, threading.Event()

    def run(self, names: list[str], feed: dict[str, Any], options: Any) -> Any:
        (rows,) = feed.values()
        if (rows[:, 0] == POISON).any():
            assert self.let_go.wait(60)
        return self.session.run(names, feed, options)


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(worker_with_spares, "GIVE_UP_S", 0.2)
    folder = letters(tmp_path, FULL_RATE, patient=False)
    with plane_of(folder, **keys_for(folder)) as made:
        yield made


def deafened(plane: PlaneFixture) -> DeafSession:
    model = plane.gateway.loaded.artifacts.models["primary"]
    assert isinstance(model, OnnxModel)
    deaf = model._session = DeafSession(model._session)
    return deaf


async def send_poison(plane: PlaneFixture) -> None:
    row = plane.good[:1].copy()
    row[0, 0] = POISON
    reply = await plane.client(plane.keys["bob"]).infer(row)
    assert reply.headers["x-failsafe-outcome"] != "served"
    await asyncio.sleep(0.3)  # as long as a thread may take to come back


async def served(plane: PlaneFixture, tries: int = 50) -> bool:
    """Whether good rows are served by the primary again, soon."""
    for _ in range(tries):
        if (await plane.ada.infer(plane.good[:8])).headers["x-failsafe-outcome"] == "served":
            return True
        await asyncio.sleep(0.1)
    return False


async def says_ready(plane: PlaneFixture) -> set[bool]:
    """What every place says that tells whether it is ready."""
    statuses = [
        (await plane.ada.get(path)).status for path in ("/v2/health/ready", "/v2/models/letters/ready")
    ]
    async with grpc_client(plane) as client:
        raw = [
            (await client(f"/{HEALTH}/Check", health_pb2.HealthCheckRequest(service=name))).message or b""
            for name in ("", "letters")
        ]
    grpc = [health_pb2.HealthCheckResponse.FromString(one).status == 1 for one in raw]
    return {status == 200 for status in statuses} | set(grpc) | {await plane.gateway.healthy()}


def test_a_row_that_does_not_come_back_costs_no_other_caller_the_model(plane: PlaneFixture) -> None:
    async def main() -> None:
        deaf = deafened(plane)
        try:
            for _ in range(MOST_GIVEN_UP):
                await send_poison(plane)
                assert await served(plane)
                assert plane.gateway.loaded.breakers["primary"].state is BreakerState.CLOSED
                assert await says_ready(plane) == {True}
        finally:
            deaf.let_go.set()

    plane.run(main)


def test_a_replica_whose_model_is_lost_says_so_until_it_comes_back(plane: PlaneFixture) -> None:
    async def main() -> None:
        deaf = deafened(plane)
        try:
            for _ in range(MOST_GIVEN_UP + 1):
                await send_poison(plane)
                await served(plane, 2)
            assert await says_ready(plane) == {False}
            reply = await plane.ada.get("/v2/health/ready")
            assert "calls of letters did not come back" in reply.json["error"]
            live = await plane.ada.get("/v2/health/live")
            assert (live.status, live.json["ready"]) == (200, False)
            assert (await plane.ada.infer(plane.easy[:1])).headers["x-failsafe-outcome"] == "degraded"
        finally:
            deaf.let_go.set()
        await asyncio.sleep(0.3)
        assert await served(plane)
        assert await says_ready(plane) == {True}

    plane.run(main)
