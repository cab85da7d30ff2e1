"""The results as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from bench.overload.figures import GreedyFigures, OverloadFigures, ProbeFigures


def line(one: OverloadFigures | GreedyFigures) -> str:
    """One load in a line, printed when it ends."""
    if isinstance(one, GreedyFigures):
        return f"{one.load}: polite {one.answered:.2%} in time, p99 {one.p99_ratio:.2f} times that of before"
    return f"{one.load}: goodput {one.goodput_ratio:.2f}, highest {one.highest_in_time:.2%} in time"


def overload_table(found: Sequence[OverloadFigures]) -> Table:
    """A line a load."""
    table = Table(
        "server",
        "rows",
        "times",
        "capacity",
        "goodput",
        "ratio",
        "p50, p99 ms",
        "highest in time, p99 ms",
        "probe ms",
        "recovery s",
        "generator: core, late p99 ms",
        "ends",
    )
    for one in found:
        table.add_row(
            one.server,
            str(one.rows),
            f"{one.times:g}",
            f"{one.capacity:.0f}",
            f"{one.goodput:.0f}",
            f"{one.goodput_ratio:.2f}",
            f"{one.answered_p50_ms:.0f}, {one.answered_p99_ms:.0f}",
            f"{one.highest_in_time:.2%}, {one.highest_p99_ms:.0f}",
            _probe(one.probe),
            "not" if one.recovery_s is None else f"{one.recovery_s:.1f}",
            f"{one.generator.cpu_share:.0%}, {one.generator.late_p99_ms:.2f}",
            _ends(one.shares),
        )
    table.caption = "capacity, goodput: requests a second; recovery: until normal after the load ends"
    return table


def greedy_table(found: Sequence[GreedyFigures]) -> Table:
    """A line a load."""
    table = Table(
        "server",
        "polite alone",
        "beside greedy",
        "p99 ms alone",
        "beside",
        "ratio",
        "probe ms",
        "greedy ends",
    )
    for one in found:
        table.add_row(
            one.server,
            f"{one.answered_alone:.2%}",
            f"{one.answered:.2%}",
            f"{one.p99_alone_ms:.1f}",
            f"{one.p99_ms:.1f}",
            f"{one.p99_ratio:.2f}",
            _probe(one.probe),
            _ends(one.greedy_shares),
        )
    table.caption = "a polite caller at a tenth of the capacity beside a greedy one at five times of it"
    return table


def _probe(probe: ProbeFigures | None) -> str:
    if probe is None:
        return "none"
    return f"{probe.most_ms:.0f}" + (f", {probe.failed} failed" if probe.failed else "")


def _ends(shares: Mapping[str, float]) -> str:
    most = sorted(shares.items(), key=lambda one: -one[1])
    return ", ".join(f"{share:.1%} {end}" for end, share in most if share >= 0.0005)
