"""How the scores of guards lie on the judged rows, with the cut drawn in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gateway.calibration.evidence import Evidence, GuardEvidence
from gateway.calibration.page.formatting import count, number, share
from gateway.calibration.page.plot import Bar, Key, Plot, Tone, finite, x_axis, y_axis
from gateway.core.rows import F8, Mask
from gateway.deployment.certificate import Certificate

BINS = 36
BEYOND = 0.6
"""How far the axis goes beyond the cut, as a part of the way from the least score to the cut."""


@dataclass(frozen=True, slots=True)
class GuardLine:
    """One row of the table of guards. Shares of the judged rows that it would stop alone, None without the
    form."""

    name: str
    kind: str
    verdict: str
    enforced: bool
    stopped: float
    input_only: float | None


def guard_lines(evidence: Evidence) -> list[GuardLine]:
    """Every certified guard alone."""
    return [
        GuardLine(
            one.name,
            one.kind,
            one.verdict,
            one.enforced,
            float((one.scores >= one.cut).mean()),
            None if (mask := _input_only(one)) is None else float(mask.mean()),
        )
        for one in evidence.guards
    ]


def input_only_stopped(evidence: Evidence) -> Mask | None:
    """bool[n]: rows that the enforced input-only forms stop together; None without such forms."""
    masks = [mask for one in evidence.guards if one.enforced and (mask := _input_only(one)) is not None]
    return np.any(masks, axis=0) if masks else None


def _input_only(guard: GuardEvidence) -> Mask | None:
    if guard.input_only_scores is None or guard.input_only_cut is None:
        return None
    return np.asarray(guard.input_only_scores >= guard.input_only_cut)


def guard_plots(certificate: Certificate, evidence: Evidence, budget: float) -> list[Plot]:
    """The joint risk beside its budget, every guard, and every input-only form."""
    plots = []
    alarm = certificate.false_alarm
    if evidence.joint is not None:
        beside = f" (budget {share(budget)})"
        plots.append(histogram("all guards together", evidence.joint, alarm.cut if alarm else None, beside))
    plots += [histogram(guard.name, guard.scores, guard.cut) for guard in evidence.guards]
    plots += [
        histogram(f"{guard.name}, while the primary is gone", guard.input_only_scores, guard.input_only_cut)
        for guard in evidence.guards
        if guard.input_only_scores is not None
    ]
    return plots


def histogram(name: str, scores: F8, cut: float | None, beside: str = "") -> Plot:
    """Rows by score, on a logarithmic axis. A bin never spans the cut.

    Args:    scores: float64[n] nats. Scores far beyond the cut are counted in the last bar, infinite ones
             too; NaN is not counted. beside: added to the share beyond the cut in the legend.
    """
    cut = cut if cut is not None and math.isfinite(cut) else None
    edges, counts = _bins(scores[~np.isnan(scores)], cut)
    x = x_axis(edges[0], edges[-1])
    y = y_axis(0.5, max(2.0, 1.3 * max(counts)), log=True)
    bars = []
    for i, rows in enumerate(counts):
        if rows:
            tone: Tone = "value" if cut is None or edges[i] < cut else "stopped"
            upto = " and above" if i == len(counts) - 1 else f" to {number(edges[i + 1])}"
            begin, end = x.at(edges[i]), x.at(edges[i + 1])
            says = f"{count(rows)} rows from {number(edges[i])}{upto}"
            bars.append(Bar(begin, round(max(end - begin - 0.8, 1.0), 1), y.at(rows), tone, says))
    legend = [Key("bar", "value", "rows that pass")]
    if cut is not None:
        beyond = share(float((scores >= cut).mean()))
        legend = [legend[0], Key("bar", "stopped", f"rows from the cut on: {beyond}{beside}")]
    return Plot(
        name,
        f"Number of judged rows by score, on a logarithmic axis. {legend[-1].text}.",
        "score, nats (further right is more suspicious)",
        "rows",
        x.ticks(),
        y.ticks(),
        bars,
        [],
        [],
        None if cut is None else (x.at(cut), f"cut {number(cut)}"),
        legend,
    )


def _bins(scores: F8, cut: float | None) -> tuple[list[float], list[int]]:
    """Edges, of which one is the cut, and the rows between each two."""
    known = finite(scores)
    low = min([*known.tolist(), *([] if cut is None else [cut])], default=0.0)
    high = max(known.tolist(), default=low)
    if cut is not None:
        way = max(cut - low, 1e-6 * max(1.0, abs(cut)))
        high = min(max(high, cut + 0.1 * way), cut + BEYOND * way)
    width = max((high - low) / BINS, 1e-9 * max(1.0, abs(low), abs(high)))
    base = low if cut is None else cut
    first, last = math.floor((low - base) / width), max(math.ceil((high - base) / width), 1)
    places = np.floor((np.clip(scores, low, high) - base) / width)
    inside = np.clip(places, first, last - 1).astype(int) - first
    edges = [base + i * width for i in range(first, last + 1)]
    return edges, np.bincount(inside, minlength=last - first).tolist()
