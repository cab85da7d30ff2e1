"""The results of one part of the growth test: costs over one kind of size, and other figures."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.growth.interleaved import SizeCost

COLLECTIONS = 2


@dataclass(frozen=True, slots=True)
class CostCurve:
    """One cost at every size."""

    what: str
    costs: list[SizeCost]


@dataclass(frozen=True, slots=True)
class SizeFigure:
    """One other figure at one size. what: with its unit."""

    what: str
    size: int
    value: float


@dataclass(frozen=True, slots=True)
class GrowthPart:
    """counted: what the sizes count."""

    title: str
    counted: str
    curves: list[CostCurve]
    facts: list[SizeFigure] = field(default_factory=list)


@contextmanager
def measure_bytes(n: int, what: str, facts: list[SizeFigure]) -> Iterator[None]:
    """Adds how many bytes each of the n objects takes that are made in the block and kept."""
    tracemalloc.start()
    try:
        yield
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    facts.append(SizeFigure(f"bytes a {what}", n, held / n))


@contextmanager
def measure_collection(n: int, facts: list[SizeFigure]) -> Iterator[None]:
    """Adds how much longer a full collection of garbage takes for what is made in the block and kept.

    A collection stops every request, and visits each object that is kept.
    """
    before_ms = _collection_ms()
    yield
    facts.append(SizeFigure("more ms a full collection", n, max(0.0, _collection_ms() - before_ms)))


def _collection_ms() -> float:
    took_ms = []
    for _ in range(COLLECTIONS):
        start_s = time.thread_time()
        gc.collect()
        took_ms.append(1e3 * (time.thread_time() - start_s))
    return min(took_ms)
