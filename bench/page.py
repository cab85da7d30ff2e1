"""A load test as one self-contained HTML page: plots as inline SVG, and every number in a table.

This module computes positions on the page; `page.html` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2

from bench.curve import LoadCurve
from bench.results import LoadFigures, LoadResults, curve_summary, how, rates, warnings

LEFT, RIGHT, TOP, BOTTOM = 64.0, 932.0, 16.0, 310.0  # the plot inside its paper of 960 by 360
LATENCY = "latency, ms"
TONES = ("one", "two", "three")

Position = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """From which value to which, and where on the paper these lie."""

    low: float
    high: float
    begin: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """The position of a value; values outside are at the edge."""
        low, high, inside = (
            (math.log10(v) if self.log else v) for v in (self.low, self.high, max(value, self.low))
        )
        return self.begin + (self.end - self.begin) * min((inside - low) / (high - low), 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values: of a log axis 1, 2 and 5 a decade, or powers of ten alone where it is long."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 5 else (1,)
            values = [step * 10.0**decade for decade in decades for step in steps]
        else:
            step = _round_step((self.high - self.low) / 6)
            values = [step * i for i in range(math.ceil(self.high / step) + 1)]
        near = 1 + 1e-9
        return [(self.at(v), f"{v:g}") for v in values if self.low <= v * near and v <= self.high * near]


@dataclass(frozen=True, slots=True)
class PlotLine:
    """One series. Its tone is a colour and a dash, so that lines differ without colour."""

    name: str
    tone: str
    places: list[Position]


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing. description: for screen readers. limits: levels across all of it."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[PlotLine]
    bars: list[tuple[float, float, float, str]]
    level: tuple[float, str] | None = None
    upright: tuple[float, str] | None = None


def render_page(results: LoadResults) -> str:
    """The page of one command's results."""
    home = jinja2.FileSystemLoader(Path(__file__).parent)
    paper = jinja2.Environment(
        loader=home, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    paper.filters |= {
        "px": lambda at: f"{at:.1f}",
        "ms": _ms,
        "share": lambda share: f"{share:.1%}",
        "many": lambda n: f"{n:,.0f}",
    }
    curve = results.curve
    name = next(name for name, load in results.loads.items() if load is results.callers)
    return paper.get_template("page.html").render(
        results=results,
        about=results.about,
        warnings=list(warnings(results)),
        how={name: how(load) for name, load in results.loads.items()},
        rates={name: rates(load, results.about.rows_a_request) for name, load in results.loads.items()},
        percentiles=percentile_plot(results.loads),
        histogram=histogram_plot(name, results.callers),
        curve_plot=None if curve is None else curve_plot(curve),
        curve_summary=None if curve is None else curve_summary(curve),
    )


def percentile_plot(loads: dict[str, LoadFigures]) -> Plot | None:
    """Latency by the share of requests that it bounds, stretched towards the slow ones."""
    found = {name: load for name, load in loads.items() if load.percentiles}
    if not found:
        return None
    most = max(load.latency_ms.n for load in found.values())
    x = Axis(1.0, 10 ** math.ceil(math.log10(max(most, 10))), LEFT, RIGHT, log=True)
    y = _latency_axis(point.ms for load in found.values() for point in load.percentiles)
    lines = [
        PlotLine(
            name, tone, [(x.at(_rarity(p.share, load.latency_ms.n)), y.at(p.ms)) for p in load.percentiles]
        )
        for (name, load), tone in zip(found.items(), TONES, strict=False)
    ]
    shares = [(x.at(1 / (1 - s)), f"{100 * s:g} %") for s in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)]
    ticks = [(at, label) for i, (at, label) in enumerate(shares) if at < RIGHT or i == 0]
    return Plot(
        "Latency by percentile", "So large a share of requests took at most so long.",
        "share of requests", LATENCY, ticks, y.ticks(), lines, [],
    )  # fmt: skip


def curve_plot(curve: LoadCurve) -> Plot:
    """Latency by offered rate, with the limit and the saturation point."""
    steps = sorted((one for one in curve.steps if one.latency_ms.n), key=lambda one: one.offered_per_s)
    x = Axis(0.0, max(step.offered_per_s for step in curve.steps) * 1.05, LEFT, RIGHT, log=False)
    values = [ms for s in steps for ms in (s.latency_ms.p50, s.latency_ms.p99, s.latency_ms.p99_9)]
    y = _latency_axis([*values, curve.p99_limit_ms])
    lines = [
        PlotLine(
            name, tone, [(x.at(step.offered_per_s), y.at(getattr(step.latency_ms, field))) for step in steps]
        )
        for name, field, tone in zip(("p50", "p99", "p99.9"), ("p50", "p99", "p99_9"), TONES, strict=True)
    ]
    found = curve.saturation_per_s
    return Plot(
        "Latency by throughput", curve_summary(curve),
        "offered rate, requests/s", LATENCY, x.ticks(), y.ticks(), lines, [],
        level=(y.at(curve.p99_limit_ms), f"p99 limit, {curve.p99_limit_ms:g} ms"),
        upright=None if found is None else (x.at(found), f"saturation, {found:,.0f}/s"),
    )  # fmt: skip


def histogram_plot(name: str, load: LoadFigures) -> Plot | None:
    """How many requests took how long."""
    if not load.histogram:
        return None
    first, last = load.histogram[0].low_ms, load.histogram[-1].high_ms
    x = Axis(first / 1.26, last * 1.26, LEFT, RIGHT, log=True)
    y = Axis(0.0, max(one.count for one in load.histogram) * 1.05, BOTTOM, TOP, log=False)
    bars = []
    for one in load.histogram:
        begin, end = x.at(one.low_ms), x.at(one.high_ms)
        label = f"{one.count:,} took {one.low_ms:.3g} to {one.high_ms:.3g} ms"
        bars.append((begin, end - begin - 1, y.at(one.count), label))
    return Plot(
        f"How long {name} took", "Requests by latency, ten bins a decade.",
        LATENCY, "requests", x.ticks(), y.ticks(), [], bars,
    )  # fmt: skip


def _latency_axis(values_ms: Iterable[float]) -> Axis:
    """A log axis with room around all of these."""
    known = [ms for ms in values_ms if ms > 0] or [1.0]
    return Axis(min(known) / 1.5, max(known) * 1.5, BOTTOM, TOP, log=True)


def _rarity(share: float, n: int) -> float:
    """One in how many takes longer; the slowest of n is one in n."""
    return min(1 / (1 - share), float(n)) if share < 1 else float(n)


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least this."""
    decade: float = 10.0 ** math.floor(math.log10(least))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= least)


def _ms(ms: float) -> str:
    return "–" if math.isnan(ms) else f"{ms:.2f}"
