"""The load generator against small real servers: what it counts, and from when."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest
import uvloop

from bench.client import Origin, Response
from bench.load import LoadPlan, arrivals, run_load
from bench.measurements import Measurements, bins, points

T = TypeVar("T")
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
SERVED = (
    b"HTTP/1.1 200 OK\r\nx-failsafe-outcome: served\r\nx-failsafe-reason: ok\r\ncontent-length: 2\r\n\r\n{}"
)
Reply = Callable[[int], Awaitable[bytes]]


async def _serving(reply: Reply, then: Callable[[Origin], Coroutine[Any, Any, T]]) -> T:
    """A real server that sends `reply(number)` to its number-th request; hangs up where that is empty."""
    count, handling = 0, set[asyncio.Task[Any] | None]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        handling.add(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n{}"):
                count += 1
                answer = await reply(count)
                writer.write(answer)
                if not answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        return await then(Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=False))
    finally:
        server.close()
        for task in filter(None, handling):
            task.cancel()
        await asyncio.gather(*filter(None, handling))
        await asyncio.sleep(0.01)  # uvloop closes in its next round


async def _served(number: int) -> bytes:
    return SERVED


def _load(reply: Reply, **options: Any) -> Measurements:
    async def measure(origin: Origin) -> Measurements:
        return (await run_load(LoadPlan(origin, [REQUEST], **options), 0.0))[0]

    return uvloop.run(_serving(reply, measure))


def test_poisson_arrivals_have_the_rate_and_memoryless_gaps() -> None:
    times = arrivals(1000, 20, seed=0)
    gaps = np.diff(times)
    assert (gaps > 0).all() and times[0] > 0 and times[-1] < 20
    assert len(times) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    assert not np.array_equal(times[:9], arrivals(1000, 20, seed=1)[:9])


def test_a_closed_loop_counts_what_came_back() -> None:
    measurements = _load(_served, seconds=0.2, connections=3)
    assert measurements.requests > 10 and not measurements.errors
    assert dict(measurements.rows) == {"served": measurements.requests}
    assert len(measurements.latencies_s["served", "ok"]) == len(measurements.all_s()) == measurements.requests


def _stall_once(stall_s: float) -> Reply:
    async def reply(number: int) -> bytes:
        if number == 20:
            time.sleep(stall_s)  # noqa: ASYNC251 (all connections at once, as a stalled gateway does)
        return SERVED

    return reply


def test_open_loop_latency_includes_the_queue_behind_a_stall() -> None:
    """Also where generator and server share a thread that stalls: nothing that was due is left out."""
    stall_s, rate = 0.4, 200
    measurements = _load(_stall_once(stall_s), seconds=1.0, connections=4, rate=rate)
    assert measurements.requests == len(arrivals(rate, 1.0, 0)) and not measurements.errors
    slow = sum(s > stall_s / 4 for s in measurements.all_s())
    assert slow > 0.5 * rate * stall_s * 3 / 4
    assert max(measurements.all_s()) >= stall_s


def test_a_closed_loop_omits_that_queue() -> None:
    measurements = _load(_stall_once(0.4), seconds=0.8, connections=4)
    assert sum(s > 0.3 for s in measurements.all_s()) <= 4


def test_what_could_not_be_answered_in_time_is_an_error() -> None:
    async def slowly(number: int) -> bytes:
        await asyncio.sleep(0.1)
        return SERVED

    measurements = _load(slowly, seconds=0.3, connections=1, rate=100, drain_s=0.1)
    assert measurements.requests == len(arrivals(100, 0.3, 0))
    assert measurements.errors.total() >= measurements.requests - 8
    assert all(kind.startswith("not answered") for kind in measurements.errors)


def test_a_warm_up_that_was_given_up_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Its connections still rest after their failures when the measured load takes them over."""

    async def measure(origin: Origin) -> Measurements:
        plan = LoadPlan(origin, [REQUEST], seconds=0.2, connections=2, rate=300, drain_s=0.01)
        return (await run_load(plan, 0.1))[0]

    measurements = uvloop.run(_serving(_hangs_up, measure))
    assert measurements.requests == measurements.errors.total() == len(arrivals(300, 0.2, 0))
    assert not caplog.records


async def _unmarked(number: int) -> bytes:
    return b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"


async def _rejected(number: int) -> bytes:
    return (
        b"HTTP/1.1 400 Bad Request\r\nx-failsafe-outcome: refused\r\nx-failsafe-reason: invalid\r\n"
        b"content-length: 0\r\n\r\n"
    )


async def _hangs_up(number: int) -> bytes:
    return b""


async def _nonsense(number: int) -> bytes:
    return b"no HTTP at all\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (_unmarked, "HTTP 502 without an outcome"),
        (_rejected, "HTTP 400 invalid"),
        (_hangs_up, "the connection was closed before the answer"),
        (_nonsense, "not HTTP: "),
    ],
)
def test_anything_but_an_outcome_is_an_error_of_its_kind(reply: Reply, kind: str) -> None:
    measurements = _load(reply, seconds=0.1, connections=2)
    assert measurements.requests == measurements.errors.total() > 0
    assert all(found.startswith(kind) for found in measurements.errors)


def test_a_refusal_for_the_rate_is_an_outcome_and_is_not_retried() -> None:
    async def limited(number: int) -> bytes:
        return SERVED.replace(b"served", b"refused").replace(b": ok", b": rate_limited")

    measurements = _load(limited, seconds=0.1, connections=1)
    assert measurements.latencies_s.keys() == {("refused", "rate_limited")} and not measurements.errors


def test_nothing_listens() -> None:
    measurements, _ = uvloop.run(
        run_load(LoadPlan(Origin("127.0.0.1", 1, False), [REQUEST], seconds=0.1, connections=1), 0.0)
    )
    assert measurements.requests == measurements.errors.total() > 0


def test_a_connection_that_the_server_closes_is_opened_again_without_an_error() -> None:
    async def closing(number: int) -> bytes:
        return SERVED.replace(b"content-length", b"connection: close\r\ncontent-length")

    measurements = _load(closing, seconds=0.1, connections=2)
    assert measurements.requests > 2 and not measurements.errors


def test_what_never_answers_is_given_up_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.TIMEOUT_S", 0.15)

    async def never_again(number: int) -> bytes:
        if number > 3:
            await asyncio.sleep(30)
        return SERVED

    measurements = _load(never_again, seconds=0.3, connections=1)
    assert measurements.errors.keys() == {"no answer in 0.15 s"}
    assert len(measurements.all_s()) == 3


def test_connections_share_the_requests_and_never_have_two_in_flight() -> None:
    waiting = most = 0

    async def slowly(number: int) -> bytes:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.005)
        waiting -= 1
        return SERVED

    measurements = _load(slowly, seconds=0.3, connections=3, rate=3000, drain_s=5.0)
    assert most == 3 and measurements.requests == len(arrivals(3000, 0.3, 0))


def test_the_warm_up_is_not_counted_but_reported_with_a_time_below_zero() -> None:
    reported: list[float] = []

    async def measure(origin: Origin) -> int:
        plan = LoadPlan(origin, [REQUEST], seconds=0.1, connections=1, rate=200)
        return (await run_load(plan, 0.3, lambda done_s, measurements: reported.append(done_s)))[0].requests

    assert uvloop.run(_serving(_served, measure)) == len(arrivals(200, 0.1, 0))
    assert reported[0] == pytest.approx(-0.3, abs=0.1) and reported[-1] >= 0


async def _plainly(number: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def test_a_success_without_an_outcome_counts_only_for_a_server_that_is_not_ours() -> None:
    ours, peer = (_load(_plainly, seconds=0.1, connections=1, peer=peer) for peer in (False, True))
    assert ours.errors.keys() == {"HTTP 200 without an outcome"} and not ours.latencies_s
    assert peer.latencies_s.keys() == {("answered", "")} and not peer.errors
    assert dict(peer.rows) == {"answered": peer.requests}


def test_a_failure_of_a_server_that_is_not_ours_is_an_error() -> None:
    async def sometimes(number: int) -> bytes:
        return await (_plainly(number) if number % 2 else _unmarked(number))

    measurements = _load(sometimes, seconds=0.2, connections=1, peer=True, rows=4)
    assert measurements.errors.keys() == {"HTTP 502"} and measurements.latencies_s.keys() == {
        ("answered", "")
    }
    assert dict(measurements.rows) == {"answered": 4 * len(measurements.all_s())}


def test_rows_are_counted_one_by_one_where_the_gateway_states_each_outcome() -> None:
    body = b'{"outputs":[{"name":"p","data":[1]},{"name":"fs_row_outcome","data":["served","deferred"]}]}'
    measurements = Measurements()
    for answer in (
        Response(200, "deferred", "abstained", body + b"\0\0\0", len(body)),
        Response(200, "deferred", "abstained", body, 0),
        Response(429, "refused", "rate_limited", b"{}", 0),
    ):
        measurements.record(answer, 1.0, 1.1, rows=2)
    assert dict(measurements.rows) == {"served": 2, "deferred": 2, "refused": 2}
    assert measurements.requests == 3 and not measurements.errors


def test_an_answer_that_cannot_be_read_is_an_error_and_stops_nothing() -> None:
    measurements = Measurements()
    for body in (b"no JSON", b"[]", b'{"outputs": [{}]}'):
        measurements.record(Response(200, "served", "ok", body, 0), 1.0, 1.1, rows=2)
    assert measurements.errors == {"the answer does not say how its rows ended": 3}
    assert measurements.requests == 3 and not measurements.rows


def test_the_histogram_and_the_percentiles_hold_every_latency() -> None:
    latencies_s = array("d", np.random.default_rng(0).lognormal(-6, 1, 5000))
    ms = np.array(latencies_s) * 1e3
    for one in bins(latencies_s):
        assert one.count == ((ms >= one.low_ms) & (ms < one.high_ms)).sum()
    assert sum(one.count for one in bins(latencies_s)) == 5000
    found = points(latencies_s)
    assert [one.share for one in found[-3:]] == [0.995, 0.998, 1.0]  # of 0.999, five lie above
    assert all((ms <= one.ms).mean() >= one.share for one in found)
    assert not bins(array("d")) and not points(array("d"))
