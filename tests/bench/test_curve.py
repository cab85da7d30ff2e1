"""The throughput-latency curve: what keeps up, and what only seems to."""

from __future__ import annotations

import asyncio
import math

import pytest
import uvloop

from bench.client import Origin, Response
from bench.curve import CAPACITY_SHARES, LoadCurve, LoadStep, achieved_per_s, saturation_per_s, steps
from bench.load import LoadPlan, ProgressCallback, arrivals
from bench.measurements import Measurements

PLAN = LoadPlan(Origin("h", 1, tls=False), [b""], seconds=10.0, rate=100.0)
SERVED, DEFERRED = Response(200, "served", "ok", b"", 0), Response(422, "deferred", "abstained", b"", 0)
LIMITED = Response(429, "refused", "rate_limited", b"", 0)
REQUEST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"


def _step(latency_s: float, slower: float = 0.0, refuse_every: int = 0, limit_ms: float = 50.0) -> LoadStep:
    """A server that answers after latency_s, and later by `slower` seconds with every second that passes."""
    measurements = Measurements()
    for i, at_s in enumerate(arrivals(100.0, 10.0, 0).tolist()):
        answer = LIMITED if refuse_every and i % refuse_every == 1 else (SERVED, DEFERRED)[i % 2]
        measurements.record(answer, at_s, at_s * (1 + slower) + latency_s, rows=1)
    return LoadStep.of(1.0, PLAN, measurements, limit_ms)


def test_a_step_that_answers_all_in_time_keeps_up_however_long_one_answer_takes() -> None:
    step = _step(latency_s=2.0, limit_ms=2001.0)
    assert step.keeps_up and step.achieved_per_s == pytest.approx(step.offered_per_s)
    assert step.offered_per_s == pytest.approx(100, rel=0.1)
    assert step.outcomes.keys() == {"served", "deferred"} and step.refused_for_load == 0


def test_a_step_whose_queue_grows_does_not_keep_up() -> None:
    step = _step(latency_s=0.001, slower=0.02, limit_ms=1e6)
    assert not step.keeps_up and step.achieved_per_s == pytest.approx(step.offered_per_s / 1.02, rel=1e-3)


def test_a_step_beyond_the_latency_limit_does_not_keep_up() -> None:
    assert _step(latency_s=0.049).keeps_up and not _step(latency_s=0.051).keeps_up


def test_refusals_because_of_load_are_not_achieved_however_quick() -> None:
    step = _step(latency_s=0.001, refuse_every=10)
    assert step.refused_for_load == step.outcomes["refused"] > 0
    assert step.achieved_per_s == pytest.approx(0.9 * step.offered_per_s, rel=0.01) and not step.keeps_up


def test_a_step_without_an_answer_achieves_nothing() -> None:
    step = LoadStep.of(1.0, PLAN, Measurements(), 50.0)
    assert step.achieved_per_s == 0 and not step.keeps_up and math.isnan(step.latency_ms.p99)
    assert achieved_per_s(Measurements(), 1.0) == 0


def test_saturation_is_the_highest_offered_rate_that_keeps_up() -> None:
    good, late = _step(latency_s=0.01), _step(latency_s=1.0)
    assert saturation_per_s([good, late]) == good.offered_per_s
    assert saturation_per_s([late]) is None


def test_the_steps_of_a_slow_server_show_where_it_saturates() -> None:
    """One worker that takes 10 ms a request: 100 a second, of which the curve may find what it can hold."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"{}"):
                async with worker:
                    await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def begin(name: str) -> ProgressCallback:
        names.append(name)
        return lambda done_s, measurements: None

    async def measure() -> LoadCurve:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=False)
            plan = LoadPlan(origin, [REQUEST], connections=8, seconds=0.5, peer=True)
            found = await steps(plan, 160.0, 1e6, 0.0, begin)
            assert [name.split()[0] for name in names] == [f"{share:.0%}" for share in CAPACITY_SHARES]
            return LoadCurve(160.0, 1e6, found, saturation_per_s(found))

    worker, names = asyncio.Lock(), list[str]()
    curve = uvloop.run(measure())
    assert not curve.steps[-1].keeps_up and curve.steps[-1].achieved_per_s < 110
    assert all(step.outcomes.keys() == {"answered"} and not step.errors for step in curve.steps)
    assert curve.steps[0].latency_ms.p50 < curve.steps[-1].latency_ms.p50
