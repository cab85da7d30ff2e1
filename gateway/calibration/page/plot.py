"""Positions on the paper of a plot; `parts.html` draws them as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from gateway.core.rows import F8

WIDTH, HEIGHT = 360.0, 236.0
"""The paper. About as wide as a telephone's screen, so that text keeps its size there."""
LEFT, RIGHT, TOP, BOTTOM = 46.0, 340.0, 24.0, 192.0

Position: TypeAlias = tuple[float, float]
Tick: TypeAlias = tuple[float, str]
Tone: TypeAlias = Literal["value", "stopped", "second", "limit", "plain"]


@dataclass(frozen=True, slots=True)
class Axis:
    """From which value to which, and where on the paper these lie. Logarithmic: low and high above 0."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value; values outside lie at the edge."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, inside = math.log10(low), math.log10(high), math.log10(inside)
        return round(self.begin + (self.end - self.begin) * (inside - low) / (high - low), 1)

    def ticks(self, *, percent: bool = False) -> list[Tick]:
        """Round values: powers of ten on a logarithmic axis, else about five in steps of 1, 2 or 5."""
        if self.log:
            decades = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            values = [10.0**decade for decade in decades]
        else:
            step = _round_step((self.high - self.low) / 6)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [i * step for i in range(first, last + 1)]
        return [(self.at(v), f"{100 * v:.4g} %" if percent else f"{v:,.6g}") for v in values]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar from the bottom of the plot. says: for the pointer and for screen readers."""

    x: float
    width: float
    top: float
    tone: Tone
    says: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line through its points."""

    tone: Tone
    points: list[Position]
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """One point."""

    x: float
    y: float
    tone: Tone
    says: str
    radius: float = 4.0


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of the legend under a plot."""

    shape: Literal["bar", "line", "dashed", "dot"]
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing. description: for screen readers. cut: a vertical line with its label."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bars: list[Bar]
    lines: list[Line]
    dots: list[Dot]
    cut: Tick | None
    legend: list[Key]


def x_axis(low: float, high: float) -> Axis:
    """From left to right."""
    return Axis(low, high if high > low else low + 1.0, LEFT, RIGHT)


def y_axis(low: float, high: float, *, log: bool = False) -> Axis:
    """From the bottom to the top."""
    return Axis(low, high if high > low else low + 1.0, BOTTOM, TOP, log)


def finite(values: F8) -> F8:
    """The numbers among the values."""
    return values[np.isfinite(values)]


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least this."""
    decade: float = 10.0 ** math.floor(math.log10(least))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= least * (1 - 1e-9))
