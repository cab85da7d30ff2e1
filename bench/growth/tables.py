"""The growth test as tables: one a part, sizes down, what was measured across."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from bench.growth.interleaved import SizeCost
from bench.growth.memory import MemoryReport
from bench.growth.part import GrowthPart
from bench.growth.report import GrowthReport

MIB, TENTHS_BELOW_US = 2**20, 100


def growth_tables(report: GrowthReport) -> Iterator[Table]:
    """Every part of a report."""
    for part in report.parts:
        yield _part(report, part)


def _part(report: GrowthReport, part: GrowthPart) -> Table:
    table = Table(
        title=f"{report.deployment}: {part.title}",
        title_justify="left",
        caption="medians; times: CPU time, compared round by round with the first size",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for name in (part.counted, "cpu us", "wall us", "times", "95 %"):
        table.add_column(name, justify="right")
    for curve in part.curves:
        table.add_section()
        for i, cost in enumerate(curve.costs):
            table.add_row(curve.what, f"{cost.size:,}", *_figures(cost, compared=i > 0))
    for what in dict.fromkeys(fact.what for fact in part.facts):
        table.add_section()
        for fact in part.facts:
            if fact.what == what:
                table.add_row(what, f"{fact.size:,}", f"{fact.value:,.1f}")
    return table


def _figures(cost: SizeCost, *, compared: bool) -> Iterator[str]:
    yield from (_us(cost.cpu_us), _us(cost.wall_us))
    if compared:
        yield from (f"{cost.ratio:.2f}", f"{cost.low:.2f} .. {cost.high:.2f}")


def _us(us: float) -> str:
    return f"{us:,.1f}" if us < TENTHS_BELOW_US else f"{us:,.0f}"


def memory_table(memory: MemoryReport) -> Table:
    """Resident memory over one run."""
    table = Table(title=f"{memory.deployment}: resident memory", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(memory.ends.items()))
    slope = memory.slope
    table.add_row("requests", f"{memory.requests:,} in {memory.elapsed_s:.0f} s")
    taken, refused = memory.large_bytes
    large = f"{memory.large_share:.1%}, in turn {taken:,} bytes (taken) and {refused:,} (refused)"
    table.add_row("of these large", large)
    table.add_row("how they ended", ends)
    table.add_row("at the start", f"{memory.samples[0].rss / MIB:,.1f} MiB")
    table.add_row("after the warm-up", f"{memory.warm_rss / MIB:,.1f} MiB")
    table.add_row("at the end", f"{memory.samples[-1].rss / MIB:,.1f} MiB")
    interval = f"{slope.low:,.1f} to {slope.high:,.1f}"
    table.add_row("growth after the warm-up", f"{slope.value:,.1f} bytes a request (95 %: {interval})")
    return table
