"""How often rows of each class are stopped, and how often their answers are wrong, worst first.

A certified share is an average over all rows: one class can be stopped far more often than the budget while
the average keeps to it. For the report and the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence
from gateway.calibration.true_values import UNKNOWN
from gateway.core.rows import Mask
from gateway.deployment.certificate import Certificate, ClassNames
from gateway.policy.schema import Policy
from guards.selective import clopper_pearson_interval

FLAG_ROWS = 200
"""Rows of the calibration data from which a class is flagged. Its rate is too uncertain below."""
FLAG_FACTOR = 3
"""A class is flagged if it is stopped more than this many times as often as the budget."""
INTERVAL_DELTA = 0.05
"""The probability, half of it on each side, with which an interval misses the true share."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The judged rows of one class.

    stopped: the share that the guards stop; low, high: its exact 95 % interval. answered: how many rows a
    rung answers whose class is known; wrong: the share of wrong answers among them, None without any.
    flagged: stopped more than `FLAG_FACTOR` times as often as the budget, and enough rows to say so.
    """

    name: str
    rows: int
    stopped: float
    low: float
    high: float
    answered: int
    wrong: float | None
    flagged: bool


@dataclass(frozen=True, slots=True)
class ClassSlices:
    """Slices by the label, and by the class that the primary predicts (empty if it predicts none).

    least_rows: judged rows from which a class is flagged.
    """

    by_label: list[Slice]
    by_prediction: list[Slice]
    least_rows: int

    @property
    def flagged(self) -> list[str]:
        """The names of classes that a reader must see, each once."""
        return list(dict.fromkeys(one.name for one in (*self.by_label, *self.by_prediction) if one.flagged))

    @property
    def large_enough(self) -> bool:
        """Whether any class has the rows to be flagged."""
        return any(one.rows >= self.least_rows for one in (*self.by_label, *self.by_prediction))


def class_slices(evidence: Evidence, labels: Sequence[str], budget: float, rows: int) -> ClassSlices:
    """The slices of the judged rows, worst first.

    Args:    labels: names of the classes, none for numbers; budget: the policy's false-alarm budget; rows: of
             the whole calibration data. A class that has `FLAG_ROWS` of these has fewer judged rows.
    """
    judged = len(evidence.rows)
    least = max(1, math.ceil(FLAG_ROWS * min(1.0, judged / max(rows, 1))))
    if evidence.rows.truth is not None or all(rung.wrong is None for rung in evidence.rungs):
        return ClassSlices([], [], least)
    answered, wrong = evidence.by >= 0, wrongly_answered(evidence)
    by_label = slices_of(evidence.rows.y, labels, evidence.stopped, answered, wrong, budget, least)
    predicted = predicted_class(evidence, 0)
    by_prediction = (
        []
        if predicted is None
        else slices_of(predicted, labels, evidence.stopped, answered, wrong, budget, least)
    )
    return ClassSlices(by_label, by_prediction, least)


def slices_of(
    classes: NDArray[Any],
    labels: Sequence[str],
    stopped: Mask,
    answered: Mask,
    wrong: Mask,
    budget: float,
    least_rows: int = FLAG_ROWS,
) -> list[Slice]:
    """One slice a class: flagged ones first, then by the share stopped, the share wrong, and the rows.

    Args:    classes: int64[n]; stopped, answered, wrong: bool[n], wrong only where answered.
    Cost:    O(n log n), and up to a few milliseconds for the intervals of a class.
    """
    found, at = np.unique(classes, return_inverse=True)
    counts = [np.bincount(at, mask, len(found)).astype(int) for mask in (None, stopped, answered, wrong)]
    slices = [
        _slice(label_name(int(number), labels), (rows, out, kept, errors), budget, least_rows)
        for number, rows, out, kept, errors in zip(found, *(one.tolist() for one in counts), strict=True)
    ]
    return sorted(slices, key=lambda one: (not one.flagged, -one.stopped, -(one.wrong or 0.0), -one.rows))


def _slice(name: str, counts: tuple[int, int, int, int], budget: float, least_rows: int) -> Slice:
    """counts: rows, and how many of them are stopped, answered and wrong."""
    rows, stopped, answered, wrong = counts
    share = stopped / rows
    return Slice(
        name,
        rows,
        share,
        *exact_interval(stopped, rows),
        answered,
        wrong / answered if answered else None,
        flagged=rows >= least_rows and share > FLAG_FACTOR * budget,
    )


@lru_cache(maxsize=4096)
def exact_interval(events: int, n: int) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share after `events` of n, 95 %: (0, 1) for n = 0.

    Cost:    about 100 evaluations of the binomial distribution, O(n) each; cached.
    """
    return clopper_pearson_interval(events, n, INTERVAL_DELTA)


def predicted_class(evidence: Evidence, rung: int) -> NDArray[Any] | None:
    """int64[n]: the class to which a rung gives the largest probability, else the one that its output `label`
    names, -1 where that is none; None without either."""
    if rung >= len(evidence.rungs):
        return None
    one = evidence.rungs[rung]
    if one.probabilities is None or one.probabilities.ndim != 2 or one.probabilities.shape[1] < 2:
        return evidence.rows.labelled.get(one.name)
    return np.asarray(one.probabilities.argmax(axis=1), np.int64)


def wrongly_answered(evidence: Evidence) -> Mask:
    """bool[n]: the rows whose answer is known to be wrong."""
    found = np.zeros(len(evidence.rows), bool)
    for depth, rung in enumerate(evidence.rungs):
        if rung.wrong is not None:
            found |= (evidence.by == depth) & rung.wrong
    return found


def class_names(policy: Policy, certificate: Certificate) -> list[str]:
    """The names of the classes: those of the policy, else those of the model or the rows."""
    target = certificate.target
    return policy.labels or (target.names if isinstance(target, ClassNames) else [])


def label_name(number: int, labels: Sequence[str]) -> str:
    """The name of a class; its number where it has none."""
    if number == UNKNOWN:
        return "no class"
    return labels[number] if 0 <= number < len(labels) else str(number)
