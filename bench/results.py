"""The results of a load test: as plain data for the JSON, and as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from rich.table import Table

from bench.load import Plan
from bench.machine import machine
from bench.requests import Target
from bench.tally import Spread, Tally

COLOURS = {"served": "green", "degraded": "yellow", "deferred": "cyan", "refused": "red"}
ANSWERED = ("served", "degraded")
LIMITED = 0.05
LATE_MS = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The requests that ended in one way. A request of several rows ends as its worst row."""

    outcome: str
    reason: str
    requests: int
    share: float
    latency_ms: Spread


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one run. late_ms: how much later than intended the generator itself sent (open loop)."""

    model: str
    machine: dict[str, str]
    loop: str
    rate: float | None
    connections: int
    rows_a_request: int
    request_bytes: int
    elapsed_s: float
    requests: int
    requests_per_s: float
    rows_answered_per_s: float
    rows: dict[str, int]
    ended: list[Ended]
    latency_ms: Spread
    late_ms: Spread
    errors: dict[str, int]

    @classmethod
    def of(cls, target: Target, plan: Plan, tally: Tally, elapsed_s: float) -> Self:
        """The results of one run that took so long, what was still in flight at its end included."""
        ended = [
            Ended(outcome, reason, len(part), len(part) / tally.requests, Spread.of(part))
            for (outcome, reason), part in sorted(tally.latencies_s.items())
        ]
        return cls(
            model=target.model,
            machine=machine(),
            loop="closed" if plan.rate is None else "open",
            rate=plan.rate,
            connections=plan.connections,
            rows_a_request=plan.rows,
            request_bytes=sum(map(len, plan.requests)) // len(plan.requests),
            elapsed_s=elapsed_s,
            requests=tally.requests,
            requests_per_s=(tally.requests - tally.errors.total()) / elapsed_s,
            rows_answered_per_s=sum(tally.rows[outcome] for outcome in ANSWERED) / elapsed_s,
            rows=dict(tally.rows),
            ended=ended,
            latency_ms=Spread.of(tally.all_s()),
            late_ms=Spread.of(tally.late_s),
            errors=dict(tally.errors),
        )


def tables(results: Results) -> Iterator[Table | str]:
    """What a person wants to see, and what would lead them astray."""
    how = "closed loop" if results.rate is None else f"open loop at {results.rate:g} requests/s"
    title = (
        f"{results.model}: {how}, {results.connections} connections, {results.elapsed_s:.1f} s, "
        f"{results.rows_a_request} rows and {results.request_bytes} bytes a request"
    )
    table = Table(title=title, title_justify="left", caption_justify="left", caption=_rates(results))
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    for name in ("requests", "share", "p50 ms", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for one in results.ended:
        counts = str(one.requests), f"{one.share:.1%}"
        table.add_row(f"[{COLOURS[one.outcome]}]{one.outcome}[/]", one.reason, *counts, *_ms(one.latency_ms))
    table.add_section()
    judged = sum(one.requests for one in results.ended)
    table.add_row("all", "", str(judged), "", *_ms(results.latency_ms))
    for kind, count in results.errors.items():
        table.add_row("[bold red]error[/]", kind, str(count), f"{count / results.requests:.1%}")
    yield table
    yield from _warnings(results)


def _rates(results: Results) -> str:
    told = f"{results.requests_per_s:.0f} requests/s; {results.rows_answered_per_s:.0f} rows/s answered"
    if results.rows_a_request == 1:
        return told
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(results.rows.items()))
    return f"{told}\nrows: {ends}; a request ends as its worst row"


def _warnings(results: Results) -> Iterator[str]:
    limited = sum(one.share for one in results.ended if one.reason == "rate_limited")
    if limited > LIMITED:
        yield (
            f"[yellow]{limited:.0%} met the caller's rate limit:[/] to measure the gateway, give --key with"
            " the key of gateway key DIR bench --per-s 1000000 --tier trusted"
        )
    if results.late_ms.n and results.late_ms.p99 > LATE_MS:
        late = f"by {results.late_ms.p99:.1f} ms at p99, which the latencies above include"
        yield f"[yellow]the generator itself was late:[/] {late}"


def _ms(spread: Spread) -> tuple[str, ...]:
    return tuple(f"{ms:.2f}" for ms in (spread.p50, spread.p90, spread.p99, spread.p99_9, spread.max))
