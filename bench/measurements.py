"""The measurements of one load: counts and latencies by outcome, errors by kind.

Every latency is kept, so percentiles are exact.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import orjson

from bench.client import Response
from gateway.core.decision import OUTCOME_NAMES
from gateway.protocol.contract import ROW_OUTCOME
from gateway.protocol.endings import Rejection

PERCENTILE_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
MIN_MS = 1e-3
REJECTIONS = frozenset(Rejection)
SUCCESS = "answered"
"""The outcome of a success of a server that is not ours, which has no outcomes."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
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


@dataclass(frozen=True, slots=True)
class PercentilePoint:
    """A latency in milliseconds that so large a share of the requests did not exceed."""

    share: float
    ms: float


@dataclass(frozen=True, slots=True)
class HistogramBin:
    """So many latencies from low_ms, inclusive, to high_ms."""

    low_ms: float
    high_ms: float
    count: int


def points(latencies_s: array[float]) -> list[PercentilePoint]:
    """The percentiles of which at least ten latencies lie above, and the maximum."""
    if not latencies_s:
        return []
    ms = np.sort(np.frombuffer(latencies_s, np.float64)) * 1e3
    known = [share for share in PERCENTILE_SHARES if (1 - share) * len(ms) >= 10]
    return [
        *(PercentilePoint(share, percentile(ms, share)) for share in known),
        PercentilePoint(1.0, float(ms[-1])),
    ]


def bins(latencies_s: array[float]) -> list[HistogramBin]:
    """Ten bins a decade, from the fastest to the slowest."""
    if not latencies_s:
        return []
    tenths = np.floor(10 * np.log10(np.maximum(np.frombuffer(latencies_s, np.float64) * 1e3, MIN_MS)))
    first = int(tenths.min())
    counts = np.bincount((tenths - first).astype(int))
    return [
        HistogramBin(10 ** (at / 10), 10 ** ((at + 1) / 10), int(count))
        for at, count in enumerate(counts, start=first)
    ]


def percentile(ascending: np.typing.NDArray[np.float64], share: float) -> float:
    """The least value that at least this share of them do not exceed."""
    return float(ascending[max(0, math.ceil(round(share * len(ascending), 9)) - 1)])


def _latencies() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Measurements:
    """Filled while the load runs.

    peer: the server is not ours; each success that it returns counts as `answered`.
    late_s: how late the generator itself sent (open loop only). first_s, last_s: when answers came.
    """

    peer: bool = False
    latencies_s: dict[tuple[str, str], array[float]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    late_s: array[float] = field(default_factory=_latencies)
    first_s: float = math.nan
    last_s: float = math.nan

    def record(self, answer: Response, since_s: float, now_s: float, rows: int) -> None:
        """Counts one answer of a request with so many rows."""
        latencies = self.latencies_s.get((answer.outcome, answer.reason))
        if latencies is None:
            latencies = self._series_for(answer, now_s)
            if latencies is None:
                return
        if rows == 1:
            self.rows[answer.outcome or SUCCESS] += 1
        else:
            ends = _row_outcomes(answer, rows)
            if ends is None:
                self.fail("the answer does not say how its rows ended")
                return
            self.rows.update(ends)
        latencies.append(now_s - since_s)
        self.last_s = now_s

    def fail(self, kind: str) -> None:
        """Counts one request that did not end in any of the four outcomes."""
        self.errors[kind] += 1

    @property
    def requests(self) -> int:
        """All that ended, errors included."""
        return sum(map(len, self.latencies_s.values())) + self.errors.total()

    def all_s(self) -> array[float]:
        """Every latency, whatever the outcome."""
        whole = _latencies()
        for part in self.latencies_s.values():
            whole.extend(part)
        return whole

    def _series_for(self, answer: Response, now_s: float) -> array[float] | None:
        """Where latencies of such an answer go; None, and an error is counted, if it is none."""
        key = answer.outcome, answer.reason
        if self.peer and not answer.outcome and 200 <= answer.status < 300:
            key = SUCCESS, ""
        elif answer.outcome not in OUTCOME_NAMES.values():
            self.fail(f"HTTP {answer.status}" if self.peer else f"HTTP {answer.status} without an outcome")
            return None
        elif answer.reason in REJECTIONS:
            self.fail(f"HTTP {answer.status} {answer.reason}")
            return None
        if not self.latencies_s:
            self.first_s = now_s
        return self.latencies_s.setdefault(key, _latencies())


def _row_outcomes(answer: Response, rows: int) -> Counter[str] | None:
    """How each row ended, if that can be read; where the request ended as a whole, all its rows ended so."""
    if answer.status != 200 or not answer.outcome:
        return Counter({answer.outcome or SUCCESS: rows})
    try:
        outputs = orjson.loads(answer.body[: answer.header_bytes or None])["outputs"]
        said = [output["data"] for output in outputs if output["name"] == ROW_OUTCOME.name]
        return Counter(said[0] if said else {answer.outcome: rows})
    except (ValueError, KeyError, TypeError):
        return None
