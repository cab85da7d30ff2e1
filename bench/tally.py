"""What came back: counts and latencies by outcome, errors by kind.

Every latency is kept, so percentiles are exact.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import orjson

from bench.claims import OUTCOMES
from bench.client import Answer
from gateway.contract import ROW_OUTCOME
from gateway.states import Rejection

NEVER_JUDGED = frozenset(Rejection)


@dataclass(frozen=True, slots=True)
class Spread:
    """Latencies in milliseconds. Each percentile is a latency that occurred."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, latencies_s: array[float]) -> Self:
        ms = np.sort(np.frombuffer(latencies_s, np.float64)) * 1e3 if latencies_s else np.array([math.nan])
        at = (percentile(ms, share) for share in (0.5, 0.9, 0.99, 0.999, 1.0))
        return cls(len(latencies_s), float(ms.mean()), *at)


def percentile(ascending: np.typing.NDArray[np.float64], share: float) -> float:
    """The least value that at least this share of them do not exceed."""
    return float(ascending[max(0, math.ceil(round(share * len(ascending), 9)) - 1)])


def _latencies() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Tally:
    """Filled while the load runs. late_s: how late the generator itself was (open loop only)."""

    latencies_s: defaultdict[tuple[str, str], array[float]] = field(
        default_factory=lambda: defaultdict(_latencies)
    )
    rows: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    late_s: array[float] = field(default_factory=_latencies)
    requests: int = 0

    def take(self, answer: Answer, latency_s: float, rows: int) -> None:
        """Counts one answer of a request with so many rows."""
        if answer.outcome not in OUTCOMES:
            self.fail(f"HTTP {answer.status} without an outcome")
            return
        if answer.reason in NEVER_JUDGED:
            self.fail(f"HTTP {answer.status} {answer.reason}")
            return
        self.requests += 1
        self.latencies_s[answer.outcome, answer.reason].append(latency_s)
        self.rows.update(_row_outcomes(answer, rows))

    def fail(self, kind: str) -> None:
        """Counts one request that did not end in any of the four outcomes."""
        self.requests += 1
        self.errors[kind] += 1

    def all_s(self) -> array[float]:
        """Every latency, whatever the outcome."""
        whole = _latencies()
        for part in self.latencies_s.values():
            whole.extend(part)
        return whole


def _row_outcomes(answer: Answer, rows: int) -> Counter[str]:
    """How each row ended; where the request ended as a whole, all its rows ended so."""
    if rows > 1 and answer.status == 200:
        document = orjson.loads(answer.body[: answer.header_bytes or None])
        for output in document["outputs"]:
            if output["name"] == ROW_OUTCOME.name:
                return Counter(output["data"])
    return Counter({answer.outcome: rows})
