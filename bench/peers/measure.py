"""One round, in the generator's own process: no server and no runner shares an interpreter with it."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace

import uvloop

from bench.curve import REFUSED
from bench.load import LoadPlan, run_load
from bench.measurements import SUCCESS, LatencySummary, Measurements
from bench.peers.proc import Usage
from bench.results import ANSWERED_OUTCOMES


@dataclass(frozen=True, slots=True)
class Round:
    """What one server achieved in one round, warm-up excluded.

    requests_per_s, rows_per_s: those that were not refused; what was deferred counts. answered: the
    share of rows that a model answered. ended: requests by outcome and reason. p50_ms, p99_ms: of all
    requests. cpu_us: of the server's whole process tree, for each request that was not refused.
    generator_busy: the share of one core that the generator used.
    """

    requests: int
    errors: dict[str, int]
    seconds: float
    requests_per_s: float
    rows_per_s: float
    answered: float
    ended: dict[str, int]
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rss_mb: float
    generator_busy: float
    wrk_per_s: float | None = None


def measure_round(plan: LoadPlan, warm_up_s: float, pid: int, cores: frozenset[int]) -> Round:
    """Loads the server whose process is `pid`, from these cores."""
    os.sched_setaffinity(0, cores)
    uvloop.run(run_load(replace(plan, seconds=warm_up_s), 0.0))
    before, own_s = Usage.of(pid), time.process_time()
    measurements, elapsed_s = uvloop.run(run_load(plan, 0.0))
    own_s, after = time.process_time() - own_s, Usage.of(pid)
    return round_of(measurements, elapsed_s, after.cpu_s - before.cpu_s, after.rss_bytes, own_s / elapsed_s)


def round_of(
    measurements: Measurements, elapsed_s: float, cpu_s: float, rss_bytes: int, generator_busy: float
) -> Round:
    """The figures of one round."""
    ended = {" ".join(how).strip(): len(part) for how, part in measurements.latencies_s.items()}
    good = sum(len(part) for (outcome, _), part in measurements.latencies_s.items() if outcome != REFUSED)
    answered = sum(measurements.rows[outcome] for outcome in (*ANSWERED_OUTCOMES, SUCCESS))
    latency = LatencySummary.of(measurements.all_s())
    return Round(
        requests=measurements.requests,
        errors=dict(measurements.errors),
        seconds=elapsed_s,
        requests_per_s=good / elapsed_s,
        rows_per_s=(measurements.rows.total() - measurements.rows[REFUSED]) / elapsed_s,
        answered=answered / max(1, measurements.rows.total()),
        ended=ended,
        p50_ms=latency.p50,
        p99_ms=latency.p99,
        cpu_us=cpu_s / good * 1e6 if good else math.nan,
        rss_mb=rss_bytes / 2**20,
        generator_busy=generator_busy,
    )
