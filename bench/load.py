"""The load: a closed loop (as many callers as connections, each waits for its answer) or an open one.

An open loop sends at random intended times, whether or not the gateway keeps up, as the world does. Latency
counts from the *intended* time: a request that had to wait for a free connection because the gateway stalled
has waited, and leaving that out (coordinated omission) would hide just the worst moments. What could not be
sent in the end is an error, not a gap.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np

from bench.client import Connection, Origin
from bench.tally import Tally
from gateway.batch import F8

TIMEOUT_S, DRAIN_S, PAUSE_S = 10.0, 30.0, 0.05
TELL_EVERY_S = 0.2
clock_s = time.perf_counter  # a loop's own clock may be as coarse as a millisecond

Told = Callable[[float, Tally], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to ask. rate: requests a second, at Poisson times; None: closed loop. rows: of each request."""

    origin: Origin
    requests: Sequence[bytes]
    rows: int = 1
    connections: int = 16
    seconds: float = 10.0
    rate: float | None = None
    seed: int = 0
    drain_s: float = DRAIN_S


async def run(plan: Plan, warm_up_s: float, tell: Told = lambda done_s, tally: None) -> tuple[Tally, float]:
    """Warms up, then measures: what came back, and in how many seconds."""
    async with _connections(plan) as connections:
        if warm_up_s > 0:
            await _load(replace(plan, seconds=warm_up_s, seed=plan.seed + 1), connections, Tally())
        tally, begin_s = Tally(), clock_s()
        telling = asyncio.create_task(_tell(tell, tally, begin_s))
        try:
            await _load(plan, connections, tally)
        finally:
            telling.cancel()
        return tally, clock_s() - begin_s


def arrivals(rate: float, seconds: float, seed: int) -> F8:
    """Poisson times: ascending offsets in seconds below `seconds`, with independent exponential gaps."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, int(rate * seconds + 10 * (rate * seconds) ** 0.5) + 10))
    return times[times < seconds]


async def _load(plan: Plan, connections: Sequence[Connection], tally: Tally) -> None:
    if plan.rate is None:
        until_s = clock_s() + plan.seconds
        await asyncio.gather(*(_caller(plan, one, i, until_s, tally) for i, one in enumerate(connections)))
    else:
        await _open_loop(plan, connections, tally)


async def _caller(plan: Plan, connection: Connection, number: int, until_s: float, tally: Tally) -> None:
    """Asks, waits for the answer, and asks again; each caller begins elsewhere among the requests."""
    start = number * len(plan.requests) // plan.connections
    for request in itertools.islice(itertools.cycle(plan.requests), start, None):
        now_s = clock_s()
        if now_s >= until_s:
            return
        await _ask(plan, connection, request, now_s, tally)


async def _open_loop(plan: Plan, connections: Sequence[Connection], tally: Tally) -> None:
    assert plan.rate is not None
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    workers = [asyncio.create_task(_worker(plan, one, due, tally)) for one in connections]
    begin_s = clock_s()
    times = begin_s + arrivals(plan.rate, plan.seconds, plan.seed)
    for at_s, request in zip(times.tolist(), itertools.cycle(plan.requests), strict=False):
        while (wait_s := at_s - clock_s()) > 0:  # noqa: ASYNC110 (a time, which nobody signals)
            await asyncio.sleep(wait_s)  # uvloop rounds to milliseconds: at the end this only yields
        tally.late_s.append(clock_s() - at_s)
        due.put_nowait((at_s, request))
    try:
        async with asyncio.timeout(plan.drain_s):
            await due.join()
    except TimeoutError:
        for _ in range(len(tally.late_s) - tally.requests):
            tally.fail(
                f"not answered {plan.drain_s:g} s after the end: the rate is more than the gateway takes"
            )
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def _worker(
    plan: Plan, connection: Connection, due: asyncio.Queue[tuple[float, bytes]], tally: Tally
) -> None:
    while True:
        at_s, request = await due.get()
        await _ask(plan, connection, request, at_s, tally)
        due.task_done()


async def _ask(plan: Plan, connection: Connection, request: bytes, since_s: float, tally: Tally) -> None:
    """One request, counted however it ends."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await connection.ask(request)
    except TimeoutError:
        connection.close()
        tally.fail(f"no answer in {TIMEOUT_S:g} s")
    except (OSError, ValueError) as error:
        connection.close()
        tally.fail(str(error) or type(error).__name__)
        await asyncio.sleep(PAUSE_S)  # a gateway that is gone is not asked a million times
    else:
        tally.take(answer, clock_s() - since_s, plan.rows)


@asynccontextmanager
async def _connections(plan: Plan) -> AsyncIterator[list[Connection]]:
    connections = [Connection(plan.origin) for _ in range(plan.connections)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
        await asyncio.sleep(0)


async def _tell(tell: Told, tally: Tally, begin_s: float) -> None:
    while True:
        tell(clock_s() - begin_s, tally)
        await asyncio.sleep(TELL_EVERY_S)
