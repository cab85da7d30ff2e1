"""A sample of a regressor's answers with their intervals, against the true values."""

from __future__ import annotations

import numpy as np

from gateway.calibration.page.formatting import number
from gateway.calibration.page.numbers import Numbers
from gateway.calibration.page.plot import Dot, Key, Line, Plot, x_axis, y_axis
from gateway.core.rows import F8, Mask

STEPS = 80


def truth_plot(given: Numbers) -> Plot:
    """Of n >= 1 answered rows, one for each step of the value."""
    some = given.take(_spread(given.value))
    low, high = (float(part([some.value, some.truth])) for part in (np.min, np.max))
    margin = 0.04 * (high - low)
    x, y = x_axis(low - margin, high + margin), y_axis(low - margin, high + margin)
    lines = [Line("plain", [(x.at(low), y.at(low)), (x.at(high), y.at(high))], dashed=True)]
    dots = []
    for value, lower, upper, truth, beyond in zip(
        *(one.tolist() for one in (some.value, some.lower, some.upper, some.truth, some.beyond)), strict=True
    ):
        says = f"value {number(value)}, truth {number(truth)}"
        if not np.isnan(lower):
            lines.append(Line("value", [(x.at(value), y.at(lower)), (x.at(value), y.at(upper))], thin=True))
            says += f", interval {number(lower)} to {number(upper)}"
        dots.append(Dot(x.at(value), y.at(truth), "stopped" if beyond > 0 else "value", says, radius=2.5))
    legend = _legend(some)
    return Plot(
        "truth against value",
        f"True values by the value answered, of {len(dots)} rows. {legend[-1].text}.",
        "value answered",
        "truth",
        x.ticks(),
        y.ticks(),
        [],
        lines,
        dots,
        None,
        [*legend, Key("dashed", "plain", "a value that is the truth")],
    )


def _legend(some: Numbers) -> list[Key]:
    if np.isnan(some.width).all():
        return [Key("dot", "value", "the true value of an answer")]
    outside, rows = int((some.beyond > 0).sum()), len(some.value)
    return [
        Key("dot", "value", "a true value in its interval, the line through it"),
        Key("dot", "stopped", f"a true value outside its interval: {outside} of these {rows}"),
    ]


def _spread(value: F8) -> Mask:
    """bool[n]: the first row of each of `STEPS` equal steps from the least value to the largest."""
    edges = np.linspace(value.min(), value.max(), STEPS + 1)[1:-1]
    first = np.unique(np.searchsorted(edges, value, side="right"), return_index=True)[1]
    return np.asarray(np.isin(np.arange(len(value)), first))
