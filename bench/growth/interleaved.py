"""One cost at several sizes, measured in turns: a machine that slows down for a while slows all of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gateway.core.rows import F8

TimedCall: TypeAlias = Callable[[], Awaitable[object]]

RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True, slots=True)
class Repetitions:
    """How often to measure each size, and how many calls make one measurement."""

    rounds: int
    calls: int


@dataclass(frozen=True, slots=True)
class SizeCost:
    """Microseconds a call at one size: medians of the rounds, of all threads' CPU time and of wall time.

    ratio: of CPU time to that of the first size in the same round, the median, with its 95 % interval.
    """

    size: int
    cpu_us: float
    wall_us: float
    ratio: float
    low: float
    high: float


async def compare_sizes(
    calls: Mapping[int, TimedCall],
    repetitions: Repetitions,
    parts: Mapping[int, int] | None = None,
    after: Callable[[], None] = lambda: None,
) -> list[SizeCost]:
    """The cost of each size's call, the first size being what the others are compared with.

    Args:    parts: how many parts a call at a size has (rows, for a cost per row); 1 unless given. The cost
             is of one part, and the effort's calls are parts.
             after: what the calls of one measurement leave to do, measured with them.
    """
    sizes = list(calls)
    shared = [(parts or {}).get(size, 1) for size in sizes]
    cpu, wall = np.empty((2, repetitions.rounds, len(sizes)))
    for size in sizes:
        await _timed(calls[size], 1, after)  # what only the first call pays
    for turn in range(repetitions.rounds):
        for i in np.roll(np.arange(len(sizes)), turn):
            count = max(1, repetitions.calls // shared[i])
            cpu[turn, i], wall[turn, i] = await _timed(calls[sizes[i]], count, after)
    return size_costs(sizes, cpu / shared, wall / shared)


async def _timed(call: TimedCall, calls: int, after: Callable[[], None]) -> tuple[float, float]:
    """Microseconds a call: CPU time of the whole process, and wall time."""
    cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(calls):
        await call()
    after()
    took_ns = time.process_time_ns() - cpu_ns, time.perf_counter_ns() - wall_ns
    return took_ns[0] / calls / 1e3, took_ns[1] / calls / 1e3


def size_costs(sizes: Sequence[int], cpu_us: F8, wall_us: F8) -> list[SizeCost]:
    """From float64[rounds, sizes]."""
    ratios = cpu_us / cpu_us[:, :1]
    picks = np.random.default_rng(SEED).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5], axis=0)
    columns = np.median(cpu_us, 0), np.median(wall_us, 0), np.median(ratios, 0), low, high
    return [SizeCost(size, *(float(column[i]) for column in columns)) for i, size in enumerate(sizes)]
