"""How far the primary's confidence can be believed, as it is and after one temperature.

A model is calibrated if of the answers given with confidence c a share c is right. One temperature T, which
divides the logits, often mends most of it and changes no answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.formatting import share
from gateway.calibration.page.plot import Dot, Key, Line, Plot, Tone, x_axis, y_axis
from gateway.core.decision import Tensors
from gateway.core.rows import F8, Mask
from gateway.policy.kinds.rows import CalibrationRows

BINS, LEAST_ROWS_A_BIN = 12, 10
LOG_LEAST, LOG_MOST = math.log(0.05), math.log(20.0)
FIT_ROWS = 2000
"""Rows on which the temperature is fitted; more would change its third digit and cost seconds."""
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of similar confidence. confidence: their mean; accuracy: the share that is right."""

    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """error: the expected calibration error, the mean distance of confidence and accuracy over all rows."""

    bins: list[Bin]
    error: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The primary before and after the temperature, which was fitted on `fitted_on` rows; None after: no rows
    to fit it on. source: what the temperature divides."""

    before: Reliability
    after: Reliability | None
    temperature: float
    fitted_on: int
    source: str
    plot: Plot


def compare(evidence: Evidence) -> Comparison | None:
    """None where the primary has no probabilities of at least two classes."""
    p = evidence.rungs[0].probabilities if evidence.rungs else None
    if p is None or p.ndim != 2 or p.shape[1] < 2:
        return None
    right = np.asarray(p.argmax(axis=1) == evidence.rows.y)
    before = reliability(_confidence(p), right)
    z, source = _logits(evidence.rows.answers[evidence.rows.primary], p)
    fitting = _fitting(evidence.tail, p.shape[1])
    if fitting is None:
        return Comparison(before, None, 1.0, 0, source, _plot(before, None, 1.0))
    temperature = fit_temperature(*fitting)
    after = reliability(softmax(z / temperature).max(axis=1), right)
    return Comparison(before, after, temperature, len(fitting[1]), source, _plot(before, after, temperature))


def reliability(confidence: F8, right: Mask) -> Reliability:
    """Bins of equal count. Args: confidence: float64[n] in [0, 1]; right: bool[n], n >= 1."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, max(1, min(BINS, len(order) // LEAST_ROWS_A_BIN)))
    bins = [Bin(len(rows), float(confidence[rows].mean()), float(right[rows].mean())) for rows in parts]
    gap = sum(one.rows * abs(one.confidence - one.accuracy) for one in bins)
    return Reliability(bins, gap / len(order))


def fit_temperature(z: F8, y: NDArray[Any]) -> float:
    """The temperature in [0.05, 20] with the least cross-entropy, by golden-section search over log T.

    Args:    z: float64[n, k] logits; y: int64[n] in [0, k).
    Cost:    30 softmaxes of n rows.
    Source:  Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The cross-entropy
             is convex in 1/T, so it has one minimum in log T.
    """
    low, high = LOG_LEAST, LOG_MOST
    for _ in range(30):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, b) if _cross_entropy(z, y, a) <= _cross_entropy(z, y, b) else (a, high)
    return math.exp((low + high) / 2)


def _cross_entropy(z: F8, y: NDArray[Any], log_temperature: float) -> float:
    scaled = z / math.exp(log_temperature)
    top = scaled.max(axis=1)
    logs = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
    return float((logs - scaled[np.arange(len(y)), y]).mean())


def softmax(z: F8) -> F8:
    """float64[n, k]: exponentials that sum to one in each row."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)


def _logits(answer: Tensors, p: NDArray[Any]) -> tuple[F8, str]:
    """The output `logits` if the probabilities are its softmax; else the logarithm of the probabilities."""
    z = answer.get("logits")
    if z is not None and z.shape == p.shape and np.isfinite(z).all():
        exact = np.asarray(z, np.float64)
        if np.allclose(softmax(exact), p, atol=0.01):
            return exact, "logits"
    return np.log(np.clip(np.asarray(p, np.float64), 1e-12, None)), "log p"


def _fitting(tail: CalibrationRows, classes: int) -> tuple[F8, NDArray[Any]] | None:
    """At most `FIT_ROWS` rows of the fold, evenly spaced, with labels that are classes."""
    answer = tail.answers.get(tail.primary, {})
    p = answer.get("probabilities")
    if p is None or p.ndim != 2 or p.shape[1] != classes:
        return None
    rows = np.flatnonzero((tail.y >= 0) & (tail.y < classes))
    rows = rows[:: max(1, math.ceil(len(rows) / FIT_ROWS))]
    if not len(rows):
        return None
    few = {name: array[rows] for name, array in answer.items() if name in ("probabilities", "logits")}
    return _logits(few, few["probabilities"])[0], tail.y[rows]


def _confidence(p: NDArray[Any]) -> F8:
    return np.asarray(np.clip(p.max(axis=1), 0.0, 1.0), np.float64)


def _plot(before: Reliability, after: Reliability | None, temperature: float) -> Plot:
    series: list[tuple[str, Tone, Reliability]] = [("as it is", "value", before)]
    if after is not None:
        series.append((f"after temperature {temperature:.2f}", "second", after))
    lowest = min(min(one.confidence, one.accuracy) for _, _, found in series for one in found.bins)
    low = min(max(math.floor(10 * lowest) / 10, 0.0), 0.9)
    x, y = x_axis(low, 1.0), y_axis(low, 1.0)
    lines = [Line("plain", [(x.at(low), y.at(low)), (x.at(1.0), y.at(1.0))], dashed=True)]
    dots = []
    for name, tone, found in series:
        places = [(x.at(one.confidence), y.at(one.accuracy)) for one in found.bins]
        lines.append(Line(tone, places, dashed=tone == "second"))
        for at, one in zip(places, found.bins, strict=True):
            says = f"{name}: confidence {share(one.confidence)}, right {share(one.accuracy)}"
            dots.append(Dot(*at, tone, f"{says}, {one.rows} rows"))
    legend = [Key("dot", tone, f"{name}: error {share(found.error)}") for name, tone, found in series]
    return Plot(
        "confidence against accuracy",
        "Share of right answers by confidence. " + "; ".join(one.text for one in legend) + ".",
        "confidence",
        "right",
        x.ticks(percent=True),
        y.ticks(percent=True),
        [],
        lines,
        dots,
        None,
        [*legend, Key("dashed", "plain", "a confidence that is true")],
    )
