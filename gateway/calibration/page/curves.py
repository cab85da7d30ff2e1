"""The error among accepted answers against the share accepted, as the cut of a rung's check loosens.

A number is wrong if its true value lies outside the interval, and the cut is a limit of the interval's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence, RungEvidence
from gateway.calibration.page.formatting import number, share
from gateway.calibration.page.histograms import input_only_stopped
from gateway.calibration.page.plot import Dot, Key, Line, Plot, x_axis, y_axis
from gateway.core.rows import F8, Mask
from gateway.deployment.certificate import Certificate, Selective
from gateway.deployment.certification.paths import CLOSED
from guards.selective import NEVER

POINTS = 160


@dataclass(frozen=True, slots=True)
class Curve:
    """share, error: float64[m], of all rows accepted and of these wrong, at m cuts from strict to loose.

    Rows that no cut accepts end it before the share of 1.
    """

    cuts: F8
    share: F8
    error: F8


@dataclass(frozen=True, slots=True)
class _Terms:
    """How the plot names an error, the errors of the curve, and the cut."""

    wrong: str
    curve: str
    cut: str


_CLASSES = _Terms("wrong", "error among accepted answers", "cut")
_NUMBERS = _Terms("outside", "true values outside the interval, of accepted answers", "width limit")


def rung_plots(certificate: Certificate, evidence: Evidence) -> list[Plot]:
    """One for each rung with a check."""
    plots = []
    terms = _CLASSES if evidence.rows.truth is None else _NUMBERS
    for rung in evidence.rungs:
        if rung.suspicion is None or rung.wrong is None:
            continue
        selective = certificate.selective.get(rung.name)
        gone = selective is not None and bool(selective.while_gone)
        stopped = input_only_stopped(evidence) if gone else evidence.stopped
        reached = np.ones(len(evidence.rows), bool) if stopped is None else ~stopped
        if (rung.suspicion[reached] < NEVER).any():
            plots.append(_plot(rung, terms, selective, rung.suspicion[reached], rung.wrong[reached]))
    return plots


def risk_coverage(suspicion: F8, wrong: Mask) -> Curve:
    """The curve of n rows, some of which a cut may accept; rows of equal suspicion are accepted together."""
    order = np.argsort(suspicion, kind="stable")
    ranked, errors = suspicion[order], np.cumsum(wrong[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True) & (ranked < NEVER))
    return Curve(ranked[ends], (ends + 1) / len(ranked), errors[ends] / (ends + 1))


def _plot(rung: RungEvidence, terms: _Terms, selective: Selective | None, suspicion: F8, wrong: Mask) -> Plot:
    curve = risk_coverage(suspicion, wrong)
    drawn = _drawn(curve, len(suspicion))
    promise = None if selective is None else selective.risk
    y = y_axis(0.0, 1.15 * max(float(curve.error[drawn].max()), promise or 0.0, 0.005))
    x = x_axis(0.0, 1.0)
    lines = [Line("value", [(x.at(curve.share[i]), y.at(curve.error[i])) for i in drawn.tolist()])]
    legend = [Key("line", "value", terms.curve)]
    if promise is not None:
        lines.append(Line("limit", [(x.at(0), y.at(promise)), (x.at(1), y.at(promise))], dashed=True))
        legend.append(Key("dashed", "limit", f"promise: at most {share(promise)}"))
    dots = []
    if rung.cut is not None:
        accepted = suspicion < rung.cut
        part, error = float(accepted.mean()), float(wrong[accepted].mean()) if accepted.any() else 0.0
        counts = f"{share(part)} accepted, {share(error)} of them {terms.wrong}"
        says = f"{_cut_name(rung, terms, selective)}: {counts}"
        dots.append(Dot(x.at(part), y.at(error), "stopped", says))
        legend.append(Key("dot", "stopped", says))
    return Plot(
        _title(rung, selective),
        f"By the share of rows accepted: {terms.curve}. {legend[-1].text}.",
        "share of rows accepted",
        terms.wrong,
        x.ticks(percent=True),
        y.ticks(percent=True),
        [],
        lines,
        dots,
        None,
        legend,
    )


def _drawn(curve: Curve, n: int) -> NDArray[np.intp]:
    """About `POINTS` places of the curve, from 2 % of the rows (at least 20, at most a third) to all."""
    first = int(np.searchsorted(curve.share, min(max(0.02, 20 / n), 1 / 3)))
    last = len(curve.share) - 1
    return np.unique(np.linspace(min(first, last), last, POINTS).astype(np.intp))


def _title(rung: RungEvidence, selective: Selective | None) -> str:
    gone = selective.while_gone if selective is not None else []
    return f"{rung.name}, while {' and '.join(gone)} is gone" if gone else rung.name


def _cut_name(rung: RungEvidence, terms: _Terms, selective: Selective | None) -> str:
    name = f"certified {terms.cut}" if selective is not None else f"{terms.cut}, without a promise"
    unit = " times the number" if rung.relative else ""
    closed = rung.cut is not None and rung.cut <= CLOSED
    value = "that accepts no answer" if closed else f"{number(rung.cut)}{unit}"
    return f"{name} {value}{'' if rung.enforced else ', only observed'}"
