"""The load: a closed loop (as many callers as connections, each waits for its answer) or an open one.

An open loop sends at random intended times, whether or not the server keeps up, as real clients do. Latency
counts from the *intended* time: a request that had to wait for a free connection because the server stalled
has waited, and leaving that out (coordinated omission) would hide the worst latencies. A request that could
not be sent counts as an error.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.client import ClientConnection, Origin, Response
from bench.measurements import Measurements
from gateway.core.rows import F8

TIMEOUT_S, DRAIN_S, PAUSE_S = 10.0, 30.0, 0.05
REPORT_EVERY_S, SWEEP_EVERY_S = 0.2, 0.1
clock_s = time.perf_counter  # a loop's own clock may be as coarse as a millisecond

ProgressCallback = Callable[[float, Measurements], None]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How to load a server.

    rate: requests a second, at Poisson times; None: closed loop. rows: of each request. peer: the server is
    not ours, and every success that it returns counts as `answered`. drain_s: how long after the last
    intended time an open loop waits for answers.
    """

    origin: Origin
    requests: Sequence[bytes]
    rows: int = 1
    connections: int = 16
    seconds: float = 10.0
    rate: float | None = None
    seed: int = 0
    drain_s: float = DRAIN_S
    peer: bool = False


async def run_load(
    plan: LoadPlan, warm_up_s: float, report_progress: ProgressCallback = lambda done_s, measurements: None
) -> tuple[Measurements, float]:
    """Warms up, then measures: what came back, and in how many seconds.

    `report_progress` gets, five times a second, the seconds measured so far; below zero in the warm-up.
    """
    connections = {ClientConnection(plan.origin) for _ in range(plan.connections)}
    try:
        if warm_up_s > 0:
            warming = replace(plan, seconds=warm_up_s, seed=plan.seed + 1)
            await _timed(
                warming,
                connections,
                Measurements(plan.peer),
                lambda s, measurements: report_progress(s - warm_up_s, measurements),
            )
        measurements = Measurements(plan.peer)
        return measurements, await _timed(plan, connections, measurements, report_progress)
    finally:
        for connection in connections:
            connection.close()
        await asyncio.sleep(0)


def arrivals(rate: float, seconds: float, seed: int) -> F8:
    """Poisson times: ascending offsets in seconds below `seconds`, with independent exponential gaps."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, int(rate * seconds + 10 * (rate * seconds) ** 0.5) + 10))
    return times[times < seconds]


async def _timed(
    plan: LoadPlan,
    connections: set[ClientConnection],
    measurements: Measurements,
    report_progress: ProgressCallback,
) -> float:
    """Runs one load; returns how many seconds it took."""
    begin_s = clock_s()
    reporting = asyncio.create_task(_report_progress(report_progress, measurements, begin_s))
    try:
        await _Load(plan, connections, measurements).run()
    finally:
        reporting.cancel()
    return clock_s() - begin_s


class _Load:
    """The response handler of all connections: gives each free one the next request, and counts responses.

    Requests that are due queue for a connection. In a closed loop one is due whenever a connection is
    free, until the time is over.
    """

    def __init__(
        self, plan: LoadPlan, connections: set[ClientConnection], measurements: Measurements
    ) -> None:
        self._plan, self._connections, self._measurements = plan, connections, measurements
        self._requests = itertools.cycle(plan.requests)
        self._idle = deque(connections)
        self._due: deque[float] = deque()
        self._until_s = 0.0
        self._ended = False
        self._all_idle = asyncio.Event()

    async def run(self) -> None:
        """Runs until every request is answered or has failed."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await (self._closed_loop() if self._plan.rate is None else self._open_loop(self._plan.rate))
        finally:
            self._ended = True
            sweeping.cancel()

    async def _closed_loop(self) -> None:
        now_s = clock_s()
        self._until_s = now_s + self._plan.seconds
        for _ in range(len(self._idle)):
            self._send_next(self._idle.popleft(), now_s)
        await self._all_idle.wait()

    async def _open_loop(self, rate: float) -> None:
        times = clock_s() + arrivals(rate, self._plan.seconds, self._plan.seed)
        for at_s in times.tolist():
            await _until(at_s)
            now_s = clock_s()
            self._measurements.late_s.append(now_s - at_s)
            self._due.append(at_s)
            if self._idle:
                self._send_next(self._idle.popleft(), now_s)
        try:
            async with asyncio.timeout(self._plan.drain_s):
                while self._due or len(self._idle) < len(self._connections):
                    self._all_idle.clear()
                    await self._all_idle.wait()
        except TimeoutError:
            self._abandon(len(times))

    def _abandon(self, count: int) -> None:
        for connection in self._connections:
            connection.close()
        kind = f"not answered {self._plan.drain_s:g} s after the end: the rate is more than the server takes"
        for _ in range(count - self._measurements.requests):
            self._measurements.fail(kind)

    def _send_next(self, connection: ClientConnection, now_s: float) -> None:
        if connection.closed:
            self._connections.remove(connection)
            connection = ClientConnection(self._plan.origin)
            self._connections.add(connection)
        if self._due:
            connection.send(next(self._requests), self, self._due.popleft(), now_s)
        elif now_s < self._until_s:
            connection.send(next(self._requests), self, now_s, now_s)
        else:
            self._idle.append(connection)
            if len(self._idle) == len(self._connections):
                self._all_idle.set()

    async def _sweep(self) -> None:
        """Timeouts, of all requests at once: a timer for each would cost more than the request."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now_s = clock_s()
            for connection in list(self._connections):
                if connection.in_flight and now_s - connection.sent_s > TIMEOUT_S:
                    connection.fail(f"no answer in {TIMEOUT_S:g} s")

    # ResponseHandler

    def answered(self, connection: ClientConnection, answer: Response) -> None:
        now_s = clock_s()
        self._measurements.record(answer, connection.since_s, now_s, self._plan.rows)
        self._send_next(connection, now_s)

    def failed(self, connection: ClientConnection, kind: str) -> None:
        self._measurements.fail(kind)
        asyncio.get_running_loop().call_later(PAUSE_S, self._resume, connection)

    def _resume(self, connection: ClientConnection) -> None:
        """Sends the next request after a pause, so that a server that is down is not flooded."""
        if not self._ended:
            self._send_next(connection, clock_s())


async def _until(at_s: float) -> None:
    while (wait_s := at_s - clock_s()) > 0:  # noqa: ASYNC110 (a time, which nothing signals)
        await asyncio.sleep(wait_s)  # uvloop rounds to milliseconds: at the end this only yields


async def _report_progress(
    report_progress: ProgressCallback, measurements: Measurements, begin_s: float
) -> None:
    while True:
        report_progress(clock_s() - begin_s, measurements)
        await asyncio.sleep(REPORT_EVERY_S)
