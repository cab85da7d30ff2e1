"""The results of a load test: as plain data for the JSON, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from rich.table import Table

from bench.curve import KEPT_UP, LoadCurve
from bench.load import LoadPlan
from bench.machine import machine
from bench.measurements import HistogramBin, LatencySummary, Measurements, PercentilePoint, bins, points

OUTCOME_COLOURS = {"served": "green", "degraded": "yellow", "deferred": "cyan", "refused": "red"}
ANSWERED_OUTCOMES = ("served", "degraded")
LIMITED = 0.05
LATE_MS = 1.0


@dataclass(frozen=True, slots=True)
class OutcomeFigures:
    """The requests that ended in one way. A request of several rows ends as its worst row."""

    outcome: str
    reason: str
    requests: int
    share: float
    latency_ms: LatencySummary


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """All figures of one load. late_ms: how much later than intended the generator sent (open loop)."""

    loop: str
    rate: float | None
    connections: int
    elapsed_s: float
    requests: int
    requests_per_s: float
    rows_answered_per_s: float
    rows: dict[str, int]
    ended: list[OutcomeFigures]
    latency_ms: LatencySummary
    percentiles: list[PercentilePoint]
    histogram: list[HistogramBin]
    late_ms: LatencySummary
    errors: dict[str, int]

    @classmethod
    def of(cls, plan: LoadPlan, measurements: Measurements, elapsed_s: float) -> Self:
        """The figures of one load that took so long, what was in flight at its end included."""
        latencies_s = measurements.all_s()
        ended = [
            OutcomeFigures(
                outcome, reason, len(part), len(part) / measurements.requests, LatencySummary.of(part)
            )
            for (outcome, reason), part in sorted(measurements.latencies_s.items())
            if part
        ]
        return cls(
            loop="closed" if plan.rate is None else "open",
            rate=plan.rate,
            connections=plan.connections,
            elapsed_s=elapsed_s,
            requests=measurements.requests,
            requests_per_s=len(latencies_s) / elapsed_s,
            rows_answered_per_s=sum(measurements.rows[outcome] for outcome in ANSWERED_OUTCOMES) / elapsed_s,
            rows=dict(measurements.rows),
            ended=ended,
            latency_ms=LatencySummary.of(latencies_s),
            percentiles=points(latencies_s),
            histogram=bins(latencies_s),
            late_ms=LatencySummary.of(measurements.late_s),
            errors=dict(measurements.errors),
        )


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What was measured, how and where. outliers: their share. request_bytes: the mean. Times in seconds."""

    model: str
    started: str
    command: str
    machine: dict[str, str]
    rows_a_request: int
    request_bytes: int
    outliers: float
    seconds: float
    warm_up_s: float

    @classmethod
    def of(cls, model: str, command: str, plan: LoadPlan, outliers: float, warm_up_s: float) -> Self:
        """Of a load that starts now, on this machine."""
        return cls(
            model=model,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            machine=machine(),
            rows_a_request=plan.rows,
            request_bytes=sum(map(len, plan.requests)) // len(plan.requests),
            outliers=outliers,
            seconds=plan.seconds,
            warm_up_s=warm_up_s,
        )


@dataclass(frozen=True, slots=True)
class LoadResults:
    """Everything that one command measured.

    callers: the load that was asked for; with a curve the closed loop that found the capacity. abusive: the
    caller that ignored its budget meanwhile. alone: the callers without it, just before.
    """

    about: RunDescription
    callers: LoadFigures
    alone: LoadFigures | None = None
    abusive: LoadFigures | None = None
    curve: LoadCurve | None = None

    @property
    def loads(self) -> dict[str, LoadFigures]:
        """Every load by its name."""
        if self.abusive is None or self.alone is None:
            return {"callers": self.callers}
        return {
            "callers alone": self.alone,
            "callers beside an abusive one": self.callers,
            "abusive caller": self.abusive,
        }

    @property
    def clean(self) -> bool:
        """Whether every request ended in one of the four outcomes, and some did."""
        steps = self.curve.steps if self.curve else []
        errors = [load.errors for load in self.loads.values()] + [step.errors for step in steps]
        return not any(errors) and bool(self.callers.ended)


def load_tables(results: LoadResults) -> Iterator[Table | str]:
    """Tables of the figures, and warnings of what may mislead."""
    for name, load in results.loads.items():
        title = f"{results.about.model}, {name}" if len(results.loads) > 1 else results.about.model
        yield _outcomes(title, load, results.about)
    if results.curve is not None:
        yield _curve(results.curve)
    yield from (f"[yellow]{what}[/]" for what in warnings(results))


def warnings(results: LoadResults) -> Iterator[str]:
    """What a reader of the figures should know first."""
    limited = _limited(results.callers)
    if limited > LIMITED:
        yield (
            f"{limited:.0%} met the caller's rate limit: to measure the gateway, give --key with the key of "
            "gateway key DIR bench --per-s 1000000 --tier trusted"
        )
    if results.abusive is not None and _limited(results.abusive) == 0:
        yield "the abusive caller met no limit: give it a key with a smaller budget, or more connections"
    steps = results.curve.steps if results.curve else []
    late_ms = max([results.callers.late_ms.p99, *(step.late_p99_ms for step in steps)], key=_known)
    if late_ms > LATE_MS:
        yield f"the generator itself was late, by {late_ms:.1f} ms at p99, which the latencies include"
    if results.curve is not None and results.curve.steps[0].refused_for_load:
        share = results.curve.steps[0].share
        yield f"refused already at {share:.0%} of the capacity: is the review queue full?"


def curve_summary(curve: LoadCurve) -> str:
    """The saturation point as text, with its definition."""
    found = curve.saturation_per_s
    point = "no step kept up" if found is None else f"saturation at {found:.0f} requests/s"
    return (
        f"{point}: the highest offered rate that achieves {KEPT_UP:.0%} of itself with p99 of at most "
        f"{curve.p99_limit_ms:g} ms; capacity in a closed loop: {curve.capacity_per_s:.0f} requests/s"
    )


def rates(load: LoadFigures, rows_a_request: int) -> str:
    """Throughput as text."""
    text = f"{load.requests_per_s:.0f} requests/s; {load.rows_answered_per_s:.0f} rows/s answered"
    if rows_a_request == 1:
        return text
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(load.rows.items()))
    return f"{text}\nrows: {ends}; a request ends as its worst row"


def how(load: LoadFigures) -> str:
    """The kind of load as text."""
    loop = "closed loop" if load.rate is None else f"open loop at {load.rate:g} requests/s"
    return f"{loop}, {load.connections} connections, {load.elapsed_s:.1f} s"


def _outcomes(title: str, load: LoadFigures, about: RunDescription) -> Table:
    size = f"{about.rows_a_request} rows and {about.request_bytes} bytes a request"
    table = _table(f"{title}: {how(load)}, {size}", rates(load, about.rows_a_request))
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    _numbers(table, "requests", "share", "p50 ms", "p90", "p99", "p99.9", "max")
    for one in load.ended:
        counts = str(one.requests), f"{one.share:.1%}"
        table.add_row(
            f"[{OUTCOME_COLOURS[one.outcome]}]{one.outcome}[/]", one.reason, *counts, *_ms(one.latency_ms)
        )
    table.add_section()
    table.add_row("all", "", str(sum(one.requests for one in load.ended)), "", *_ms(load.latency_ms))
    for kind, count in load.errors.items():
        table.add_row("[bold red]error[/]", kind, str(count), f"{count / load.requests:.1%}")
    return table


def _curve(curve: LoadCurve) -> Table:
    table = _table(
        "open loops at shares of the capacity, latency from the intended start", curve_summary(curve)
    )
    _numbers(
        table,
        "share",
        "offered/s",
        "achieved/s",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "late p99",
        "refused",
        "errors",
    )
    table.add_column("keeps up")
    for step in curve.steps:
        spread = step.latency_ms
        ms = (f"{one:.2f}" for one in (spread.p50, spread.p90, spread.p99, spread.p99_9, step.late_p99_ms))
        counts = str(step.refused_for_load), str(sum(step.errors.values()))
        text = "[green]yes[/]" if step.keeps_up else "[red]no[/]"
        rates_ = f"{step.offered_per_s:.0f}", f"{step.achieved_per_s:.0f}"
        table.add_row(f"{step.share:.0%}", *rates_, *ms, *counts, text)
    return table


def _table(title: str, caption: str) -> Table:
    return Table(title=title, title_justify="left", caption_justify="left", caption=caption)


def _numbers(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right")


def _limited(load: LoadFigures) -> float:
    return sum(one.share for one in load.ended if one.reason == "rate_limited")


def _known(ms: float) -> float:
    return -math.inf if math.isnan(ms) else ms


def _ms(spread: LatencySummary) -> tuple[str, ...]:
    return tuple(f"{ms:.2f}" for ms in (spread.p50, spread.p90, spread.p99, spread.p99_9, spread.max))
