"""The throughput-latency curve: how latency grows with the rate that is offered, and where it gets too long.

A closed loop finds the capacity; then open loops offer shares of it. Both rates of a step count from the
first to the last, of intended times and of answers, so that the latency of one answer cancels out.

The **saturation point** is the highest offered rate of a step that keeps up: it achieves at least 99 % of
the rate that it was offered, and the 99th percentile of latency, from the intended start, is at most the
limit. Refusals because of load (`rate_limited`, `unavailable`, `deadline`) and errors are not achieved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from bench.load import LoadPlan, ProgressCallback, arrivals, run_load
from bench.measurements import LatencySummary, Measurements
from gateway.core.decision import Reason

CAPACITY_SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1)
KEPT_UP = 0.99
LOAD_REASONS = (Reason.RATE_LIMITED, Reason.UNAVAILABLE, Reason.DEADLINE)
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LoadStep:
    """One open loop. share: of the capacity. late_p99_ms: how late the generator itself sent."""

    share: float
    offered_per_s: float
    achieved_per_s: float
    latency_ms: LatencySummary
    late_p99_ms: float
    outcomes: dict[str, int]
    refused_for_load: int
    errors: dict[str, int]
    keeps_up: bool

    @classmethod
    def of(cls, share: float, plan: LoadPlan, measurements: Measurements, limit_ms: float) -> Self:
        """The figures of the open loop of a plan."""
        assert plan.rate is not None
        due_s = arrivals(plan.rate, plan.seconds, plan.seed)
        offered = _rate(len(due_s), float(due_s[-1] - due_s[0]), plan.seconds) if len(due_s) else 0.0
        achieved = achieved_per_s(measurements, plan.seconds)
        spread = LatencySummary.of(measurements.all_s())
        return cls(
            share=share,
            offered_per_s=offered,
            achieved_per_s=achieved,
            latency_ms=spread,
            late_p99_ms=LatencySummary.of(measurements.late_s).p99,
            outcomes=_outcomes(measurements),
            refused_for_load=_refused_for_load(measurements),
            errors=dict(measurements.errors),
            keeps_up=achieved >= KEPT_UP * offered and spread.p99 <= limit_ms,
        )


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """saturation_per_s: None where no step kept up."""

    capacity_per_s: float
    p99_limit_ms: float
    steps: list[LoadStep]
    saturation_per_s: float | None


def saturation_per_s(steps: list[LoadStep]) -> float | None:
    """The highest offered rate of a step that keeps up."""
    return max((step.offered_per_s for step in steps if step.keeps_up), default=None)


def achieved_per_s(measurements: Measurements, seconds: float) -> float:
    """Answers a second, from the first to the last; refusals because of load are none."""
    answers = sum(map(len, measurements.latencies_s.values())) - _refused_for_load(measurements)
    return _rate(answers, measurements.last_s - measurements.first_s, seconds)


async def steps(
    plan: LoadPlan,
    capacity_per_s: float,
    limit_ms: float,
    warm_up_s: float,
    begin: Callable[[str], ProgressCallback],
) -> list[LoadStep]:
    """One open loop for each share of the capacity, each with its own random times."""
    return [
        LoadStep.of(
            share, step, (await run_load(step, warm_up_s, begin(f"{share:.0%} of capacity")))[0], limit_ms
        )
        for share, step in _plans(plan, capacity_per_s)
    ]


def _plans(plan: LoadPlan, capacity_per_s: float) -> Iterator[tuple[float, LoadPlan]]:
    for number, share in enumerate(CAPACITY_SHARES):
        yield share, replace(plan, rate=share * capacity_per_s, seed=plan.seed + 2 * number)


def _rate(count: int, span_s: float, seconds: float) -> float:
    """Of `count` times that lie so far apart; where there are too few, of all the seconds."""
    return (count - 1) / span_s if count > 1 and span_s > 0 else count / seconds


def _refused_for_load(measurements: Measurements) -> int:
    return sum(len(measurements.latencies_s.get((REFUSED, reason), ())) for reason in LOAD_REASONS)


def _outcomes(measurements: Measurements) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (outcome, _), latencies in sorted(measurements.latencies_s.items()):
        counts[outcome] += len(latencies)
    return dict(counts)
