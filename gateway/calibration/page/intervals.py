"""How large a regressor's errors are, and whether its narrow and wide intervals hold as often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.deciles import Estimate
from gateway.calibration.page.formatting import number, share
from gateway.calibration.page.numbers import answered_numbers, numbers_of
from gateway.calibration.page.plot import Dot, Key, Line, Plot, x_axis, y_axis
from gateway.calibration.page.truth import truth_plot
from gateway.core.rows import F8, Mask

BINS, LEAST_ROWS_A_BIN = 10, 20


@dataclass(frozen=True, slots=True)
class RungErrors:
    """A rung over the judged rows that the guards let pass, as if it answered all of them.

    error: mean absolute error; bias: mean of value less truth; width: the median interval's, outside: the
    share of true values outside it, None without intervals.
    """

    name: str
    error: float
    bias: float
    width: float | None
    outside: float | None


def rung_errors(evidence: Evidence) -> list[RungErrors]:
    """One a rung that answers a number; none where the guards let no row pass."""
    found = []
    for depth, rung in enumerate(evidence.rungs):
        numbers = numbers_of(evidence, depth)
        if numbers is None or evidence.stopped.all():
            continue
        passed = numbers.take(~evidence.stopped)
        without = bool(np.isnan(passed.width).any())
        found.append(
            RungErrors(
                rung.name,
                float(passed.error.mean()),
                float((passed.value - passed.truth).mean()),
                None if without else float(np.median(passed.width)),
                None if without else float((passed.beyond > 0).mean()),
            )
        )
    return found


def number_plots(evidence: Evidence, answered_error: float | None) -> list[Plot]:
    """Of the answered rows: truth against value, and how often narrow and wide intervals miss."""
    numbers = answered_numbers(evidence)
    if numbers is None:
        return []
    given = numbers.take(np.isfinite(numbers.value))
    if not len(given.value):
        return []
    plots = [truth_plot(given)]
    if not np.isnan(given.width).any():
        relative = evidence.rungs[0].relative
        size = np.maximum(np.abs(given.value), np.finfo(np.float32).tiny) if relative else 1.0
        unit = ", as a share of the number" if relative else ""
        plots.append(_width_plot(given.width / size, given.beyond > 0, answered_error, unit))
    return plots


def _width_plot(width: F8, outside: Mask, answered_error: float | None, unit: str) -> Plot:
    order = np.argsort(width, kind="stable")
    parts = np.array_split(order, max(1, min(BINS, len(order) // LEAST_ROWS_A_BIN)))
    shares = [Estimate.of(outside[rows]) for rows in parts]
    medians = [number(float(np.median(width[rows]))) for rows in parts]
    x = x_axis(0.5, len(parts) + 0.5)
    y = y_axis(0.0, 1.1 * max(answered_error or 0.0, 0.01, *(one.high for one in shares)))
    lines, dots = [], []
    for i, (rows, one, median) in enumerate(zip(parts, shares, medians, strict=True), start=1):
        lines.append(Line("value", [(x.at(i), y.at(one.low)), (x.at(i), y.at(one.high))]))
        says = f"{len(rows)} intervals of median width {median}: {share(one.share)} outside"
        dots.append(Dot(x.at(i), y.at(one.share), "value", says))
    legend = [Key("dot", "value", "true values outside, with a 95\xa0% interval of the share")]
    if answered_error is not None:
        level = y.at(answered_error)
        lines.append(Line("limit", [(x.at(0.5), level), (x.at(len(parts) + 0.5), level)], dashed=True))
        legend.append(Key("dashed", "limit", f"at most, of all answers together: {share(answered_error)}"))
    return Plot(
        "outside against width",
        f"Share of true values outside by the width of the interval, from {medians[0]} to {medians[-1]}.",
        f"median width of the interval{unit}",
        "outside",
        [(x.at(i + 1), medians[i]) for i in sorted({0, len(parts) // 2, len(parts) - 1})],
        y.ticks(percent=True),
        [],
        lines,
        dots,
        None,
        legend,
    )
