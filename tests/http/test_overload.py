"""Load that cannot be answered in time is refused unparsed, from below, and never a health probe."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallbacks.oip import open_inference_pb2 as pb
from gateway.core.brownout import MEASURED_S
from gateway.core.row_limit import PRIORITY_SHARES
from gateway.protocol.apparent_priority import HIGHEST, apparent_priority
from tests.support.data_planes import INFER, PlaneFixture, request_of, whole_plane
from tests.support.raw_http import RawConnection, get, listening, post


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    with whole_plane(tmp_path_factory) as made:
        yield made


@contextmanager
def under_way(plane: PlaneFixture, rows: int, priority: int, *, stepped_down: bool = True) -> Iterator[None]:
    """So many rows of ada's under way; and one of another caller's, which makes her share a half.

    stepped_down: as many have stepped down, so that there is no room for more of these either.
    """
    limits = [plane.gateway.batcher.limit]
    if stepped_down:
        limits.append(plane.gateway.brownout.below.limit)
    for limit in limits:
        limit.take("ada", rows, priority)
        limit.take("bob", 1, 1)
    try:
        yield
    finally:
        for limit in limits:
            limit.release("ada", rows, priority)
            limit.release("bob", 1, 1)


async def spare_time(plane: PlaneFixture) -> None:
    """Until the event loop is known to have time to spare."""
    for _ in range(100):
        if plane.gateway.brownout.has_spare_time():
            return
        await asyncio.sleep(MEASURED_S)
    raise AssertionError("the event loop has been busy for 25 s")


def infer(plane: PlaneFixture, body: bytes, *headers: str) -> bytes:
    return post(INFER, body, f"Authorization: Bearer {plane.keys['ada']}", *headers)


def test_a_full_gateway_refuses_bodies_unparsed_and_tells_when_to_come_again(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            connection = await listener.connect()
            with under_way(plane, 2 * plane.gateway.batcher.limit.rows, 1):
                got = await connection.request(infer(plane, b"no JSON at all"))
            assert (got.status, got.headers["x-failsafe-reason"]) == (503, "unavailable")
            assert int(got.headers["retry-after"]) >= 2
            assert (await connection.request(infer(plane, b"no JSON at all"))).status == 400

    plane.run(main)


def test_what_has_no_room_is_answered_by_the_fallback_while_there_is_time_to_spare(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        await spare_time(plane)
        before = plane.gateway.brownout.stepped_down_total
        with under_way(plane, 2 * plane.gateway.batcher.limit.rows, 1, stepped_down=False):
            got = await plane.ada.infer(plane.good[:1])
        assert got.outcome == (200, "degraded", "unavailable")
        assert got.headers["x-failsafe-served-by"] == plane.gateway.loaded.policy.rungs[1].name
        assert plane.gateway.brownout.stepped_down_total == before + 1
        assert (await plane.ada.infer(plane.good[:1])).outcome == (200, "served", "ok")

    plane.run(main)


def test_health_probes_are_answered_however_full_it_is(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with listening(plane.handler) as listener:
            with under_way(plane, 100 * plane.gateway.batcher.limit.rows, 1):
                for path in ("/v2/health/ready", "/v2/health/live"):
                    assert (await listener.request(get(path))).status == 200

    plane.run(main)


def test_a_caller_with_less_than_its_share_is_answered_where_another_fills_the_limit(
    plane: PlaneFixture,
) -> None:
    async def main() -> None:
        with under_way(plane, 2 * plane.gateway.batcher.limit.rows, 1):
            bob = plane.client(plane.keys["bob"])
            assert (await bob.infer(plane.good[:1])).outcome[0] == 200
            assert (await plane.ada.infer(plane.good[:1])).outcome == (503, "refused", "unavailable")

    plane.run(main)


@pytest.mark.parametrize("priority", [2, 3, 4])
def test_lower_priorities_are_refused_first(plane: PlaneFixture, priority: int) -> None:
    async def main() -> None:
        ends, rows = [], plane.gateway.batcher.limit.rows
        with under_way(plane, int(1.2 * rows * PRIORITY_SHARES[priority - 1]), priority):
            for own in (priority - 1, priority):
                body, _ = request_of(plane.good[:1], parameters={"priority": own})
                ends.append((await plane.ada.post(body)).outcome)
        assert ends == [(200, "served", "ok"), (503, "refused", "unavailable")]

    plane.run(main)


async def sent_slowly(connection: RawConnection, request: bytes, pause_s: float) -> Any:
    head, end, body = request.partition(b"\r\n\r\n")
    await connection.send(head + end)
    await asyncio.sleep(pause_s)
    await connection.send(body)
    return await connection.reply()


def test_a_deadline_counts_from_the_first_byte(plane: PlaneFixture) -> None:
    async def main() -> None:
        body, _ = request_of(plane.good[:1])
        async with listening(plane.handler) as listener:
            connection = await listener.connect()
            with plane.recorded() as records:
                hurried = infer(plane, body, "X-Request-Timeout-Seconds: 0.03")
                got = await sent_slowly(connection, hurried, 0.1)
                assert (got.status, got.headers["x-failsafe-reason"]) == (504, "deadline")
                patient = infer(plane, body, "X-Request-Timeout-Seconds: 5")
                assert (await sent_slowly(connection, patient, 0.1)).status == 200
            assert [len(record.decisions[0].findings) > 0 for record in records] == [False, True]

    plane.run(main)


@given(st.integers(1, 9), st.integers(0, 3))
def test_the_apparent_priority_is_the_one_that_is_parsed(priority: int, spaces: int) -> None:
    text = b'{"inputs": [], "parameters": {"timeout": 5, "priority"%b:%b%d}}' % (
        b" " * spaces,
        b" ",
        priority,
    )
    assert apparent_priority(text) == priority
    for kind in ("int64_param", "uint64_param"):
        message = pb.ModelInferRequest(model_name="letters")
        setattr(message.parameters["priority"], kind, priority)
        assert apparent_priority(message.SerializeToString()) == priority


@given(st.binary(max_size=200))
def test_any_body_has_an_apparent_priority(body: bytes) -> None:
    assert apparent_priority(body) >= HIGHEST
