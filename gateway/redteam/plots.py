"""Success, alarms and fidelity by queries, as plots of the page."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.calibration.page.plot import LEFT, RIGHT, Axis, Dot, Key, Line, Plot, Position, Tone, y_axis
from gateway.redteam.figures import FIDELITY
from gateway.redteam.records import Checkpoint, Evasion, Extraction, RunRecord


def evasion_plots(evasions: Sequence[Evasion]) -> list[Plot]:
    """One an attack that has a whole run."""
    return [_evasion_plot(one) for one in evasions if any(run.counted for run in one.runs)]


def extraction_plots(extractions: Sequence[Extraction]) -> list[Plot]:
    """One a source of rows: a line for each number of keys, and the bare model's."""
    sources = list(dict.fromkeys(one.queries_from for one in extractions if one.curve))
    return [
        _extraction_plot([e for e in extractions if e.queries_from == one and e.curve]) for one in sources
    ]


def _evasion_plot(one: Evasion) -> Plot:
    whole = [run for run in one.runs if run.counted]
    bare = [run for run in one.bare or () if run.counted]
    wins, alarms = _wins(whole), [run.first_alarm for run in whole if run.first_alarm is not None]
    x = _queries_axis([*alarms, *(run.queries for run in (*whole, *bare))])
    y = y_axis(0.0, 1.0)
    lines = [Line("limit", _steps(alarms, len(whole), x, y), dashed=True)]
    legend = [
        Key("line", "value", f"through the gateway: {len(wins)} of {len(whole)} runs"),
        Key("dashed", "limit", f"first alarm: {len(alarms)} of {len(whole)}"),
    ]
    if bare:
        lines.append(Line("second", _steps(_wins(bare), len(bare), x, y)))
        legend.insert(1, Key("line", "second", f"from the bare model: {len(_wins(bare))} of {len(bare)}"))
    lines.append(Line("value", _steps(wins, len(whole), x, y)))
    title = f"{one.attack}, within {one.within}"
    says = f"Share of runs by the number of queries. {'; '.join(key.text for key in legend)}."
    return Plot(title, says, "queries", "runs", x.ticks(), y.ticks(percent=True), [], lines, [], None, legend)


def _wins(runs: Sequence[RunRecord]) -> list[int]:
    return [run.queries for run in runs if run.ended == "success"]


def _steps(at: Sequence[int], n: int, x: Axis, y: Axis) -> list[Position]:
    """The share of n runs that have come to their moment, by queries."""
    points = [(x.at(x.low), y.at(0.0))]
    for done, queries in enumerate(sorted(at), start=1):
        points += [(x.at(queries), points[-1][1]), (x.at(queries), y.at(done / n))]
    return [*points, (x.at(x.high), points[-1][1])]


def _extraction_plot(several: Sequence[Extraction]) -> Plot:
    bare = several[0].bare
    x = _queries_axis([point.rows for one in several for point in (*one.curve, *bare)])
    y = y_axis(0.0, 1.0)
    level = y.at(FIDELITY)
    lines = [Line("limit", [(x.at(x.low), level), (x.at(x.high), level)], dashed=True)]
    legend = [Key("dashed", "limit", f"fidelity of {FIDELITY:.0%}")]
    dots: list[Dot] = []
    if bare:
        lines.append(Line("second", _curve(bare, x, y)))
        dots += _dots(bare, "the bare model", "second", x, y)
        legend.append(Key("line", "second", f"from the bare model: {bare[-1].fidelity:.1%}"))
    for one in several:
        keys = f"{one.keys} key{'s' * (one.keys > 1)}"
        lines.append(Line("value", _curve(one.curve, x, y), thin=one.keys > 1))
        dots += _dots(one.curve, keys, "value", x, y)
        legend.append(Key("line", "value", f"through the gateway, {keys}: {one.curve[-1].fidelity:.1%}"))
    says = f"Agreement with the bare model by rows sent. {'; '.join(key.text for key in legend)}."
    title = f"rows from: {several[0].queries_from}"
    return Plot(
        title, says, "rows sent", "agree", x.ticks(), y.ticks(percent=True), [], lines, dots, None, legend
    )


def _curve(points: Sequence[Checkpoint], x: Axis, y: Axis) -> list[Position]:
    return [(x.at(one.rows), y.at(one.fidelity)) for one in points]


def _dots(points: Sequence[Checkpoint], who: str, tone: Tone, x: Axis, y: Axis) -> list[Dot]:
    return [
        Dot(
            x.at(one.rows),
            y.at(one.fidelity),
            tone,
            f"{who}: {one.fidelity:.1%} after {one.rows:,} rows",
            3.0,
        )
        for one in points
    ]


def _queries_axis(values: Sequence[int]) -> Axis:
    """Logarithmic, from 1 or a power of ten below, to a little more than the most."""
    least = max(1, min(values, default=1))
    low = 10.0 ** (len(str(least)) - 1)
    return Axis(low, max(10 * low, 1.1 * max(values, default=1)), LEFT, RIGHT, log=True)
