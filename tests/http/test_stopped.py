"""What callers get of a stopped model or rung, over HTTP and gRPC, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from gateway.serving.review_answers import answer_unsure
from gateway.serving.stops import Stop
from tests.support.data_planes import INFER, PlaneFixture, mixed, whole_plane
from tests.support.grpc_client import grpc_client

SERVED = (200, "served", "ok")
STOPPED = (503, "refused", "stopped")
READY = ("/v2/health/ready", "/v2/models/letters/ready")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


@contextmanager
def stopped(plane: PlaneFixture, *rungs: str | None) -> Iterator[None]:
    """Stopped by an operator meanwhile: the model, or these rungs."""
    switch, latch = plane.handler.plane.repository.switch, plane.gateway.latch

    async def stop() -> None:
        for rung in rungs:
            await switch.stop({latch: Stop(rung=rung, by="ada", at=datetime.now(UTC))})

    async def resume() -> None:
        for rung in rungs:
            await switch.resume({latch: latch.file.scope("letters", rung)})

    plane.run(stop)
    try:
        yield
    finally:
        plane.run(resume)


async def statuses(plane: PlaneFixture) -> list[int]:
    return [(await plane.ada.get(path)).status for path in READY]


def test_every_row_of_a_stopped_model_is_refused_with_a_time_to_ask_again(plane: PlaneFixture) -> None:
    async def main() -> None:
        for x in (plane.good[:1], plane.strange[:1], mixed(plane)):
            reply = await plane.ada.infer(x)
            assert reply.outcome == STOPPED
            assert reply.headers["retry-after"] == "60"
            assert "ada" not in reply.json["error"]

    with stopped(plane, None):
        plane.run(main)
    assert plane.run(lambda: plane.ada.infer(plane.good[:1])).outcome == SERVED


def test_the_body_of_a_request_to_a_stopped_model_is_not_read(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with plane.ada.connection() as wire:
            request = plane.ada.encode("POST", INFER, b"x" * 1000)
            await wire.send(request[: request.index(b"\r\n\r\n") + 4])
            assert (await wire.reply()).status == 503

    with stopped(plane, None):
        plane.run(main)


def test_a_refused_row_of_a_stopped_model_charges_no_budget_opens_no_case_and_is_recorded(
    plane: PlaneFixture,
) -> None:
    slow = plane.client(plane.keys["slow"])  # may send one row in a thousand seconds

    async def main() -> Any:
        with plane.recorded() as records:
            ends = [(await slow.infer(plane.strange[:1])).outcome for _ in range(3)]
        return ends, [one.outcome for record in records for one in record.decisions], await plane.cases()

    plane.run(plane.answer_all)
    with stopped(plane, None):
        ends, recorded, cases = plane.run(main)
    assert ends == [STOPPED] * 3
    assert [str(one.reason) for one in recorded] == ["stopped"] * 3
    assert cases == set()


def test_rows_of_a_stopped_rung_go_to_the_next_and_the_model_stays_ready(plane: PlaneFixture) -> None:
    async def main() -> None:
        reply = await plane.ada.infer(plane.easy[:1])
        assert reply.outcome == (200, "degraded", "unavailable")
        assert reply.parameters["fs_served_by"] == "small"
        assert await statuses(plane) == [200, 200]

    with stopped(plane, "primary"):
        plane.run(main)


@pytest.mark.parametrize("rungs", [(None,), ("primary", "small")], ids=["model", "each rung"])
def test_nothing_is_ready_while_no_rung_may_answer(
    plane: PlaneFixture, rungs: tuple[str | None, ...]
) -> None:
    async def main() -> None:
        assert await statuses(plane) == [503, 503]
        assert (await plane.ada.get("/v2/health/live")).status == 200, "nothing is to be restarted"
        index = await plane.ada.request("POST", "/v2/repository/index")
        assert b'"state":"UNAVAILABLE"' in index.body
        async with grpc_client(plane) as client:
            asked = health_pb2.HealthCheckRequest(service="letters").SerializeToString()
            found = await client("/grpc.health.v1.Health/Check", asked)
            assert health_pb2.HealthCheckResponse.FromString(found.message or b"").status == 2

    with stopped(plane, *rungs):
        plane.run(main)
    assert plane.run(lambda: statuses(plane)) == [200, 200]


def test_with_each_rung_stopped_by_itself_rows_go_to_reviewers(plane: PlaneFixture) -> None:
    with stopped(plane, "primary", "small"):
        reply = plane.run(lambda: plane.ada.infer(plane.good[:1]))
    assert reply.outcome[:2] == (422, "deferred")


def test_over_grpc_a_stopped_model_is_exhausted_with_a_time_to_ask_again(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            result = await client.infer(plane.good[:1])
            assert result.outcome == ("RESOURCE_EXHAUSTED", "refused", "stopped", "none")
            assert result.trailers["retry-after"] == "60"

    with stopped(plane, None):
        plane.run(main)


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_an_answer_whose_caller_waits_for_a_reviewer_does_not_leave_after_the_stop(
    plane: PlaneFixture, over: str
) -> None:
    """Rows that were answered are held with the deferred one: 30 seconds are long enough for a stop."""
    latch, switch = plane.gateway.latch, plane.handler.plane.repository.switch

    async def ask() -> str:
        headers = [("prefer", "wait=30")]
        if over == "http":
            return (
                await plane.ada.infer(mixed(plane), headers, outputs=[{"name": "fs_row_outcome"}])
            ).outcome[2]
        async with grpc_client(plane) as client:
            return (await client.infer(mixed(plane), headers=headers, outputs=["fs_row_outcome"])).outcome[2]

    async def main() -> str:
        await plane.answer_all()
        asking = asyncio.create_task(ask())
        case = await plane.new_case()
        await switch.stop({latch: Stop(by="ada", at=datetime.now(UTC))})
        await plane.answer(case, answer_unsure())
        return await asking

    try:
        assert plane.run(main) == "stopped"
    finally:
        plane.run(lambda: switch.resume({latch: latch.file.scope("letters")}))
