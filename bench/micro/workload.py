"""A workload is what one benchmark repeats: how a stage of the gateway is called, and how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

ROUND_S = 0.005


@dataclass(frozen=True, slots=True)
class SyncWorkload:
    """A call that returns its result. `requests`: how many requests one call serves."""

    call: Callable[[], object]
    requests: int = 1


@dataclass(frozen=True, slots=True)
class AsyncWorkload:
    """A call whose result is awaited."""

    call: Callable[[], Awaitable[object]]
    requests: int = 1


Workload: TypeAlias = SyncWorkload | AsyncWorkload


def repeat(workload: Workload, calls: int, loop: asyncio.AbstractEventLoop) -> object:
    """Calls a workload so often and returns its last result.

    All awaited calls run in one task: to enter the loop costs tens of microseconds, and a request does not.
    """
    if isinstance(workload, AsyncWorkload):
        return loop.run_until_complete(_await(workload, calls))
    result = None
    for _ in range(calls):
        result = workload.call()
    return result


async def _await(workload: AsyncWorkload, calls: int) -> object:
    result = None
    for _ in range(calls):
        result = await workload.call()
    return result


def calls_a_round(workload: Workload, loop: asyncio.AbstractEventLoop) -> int:
    """How many calls take about five milliseconds, which makes the clock and the loop's entry negligible."""
    calls = 1
    while True:
        start_s = time.perf_counter()
        repeat(workload, calls, loop)
        took_s = time.perf_counter() - start_s
        if took_s >= ROUND_S / 4:
            return max(1, round(calls * ROUND_S / took_s))
        calls *= 4
