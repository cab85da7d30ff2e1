"""The rows at which to look first: the worst that were accepted and the nearest that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.formatting import number
from gateway.calibration.page.pictures import Shown, show
from gateway.calibration.slices import answered_class, label_name, predicted_class
from gateway.core.rows import F8, RowIndices

MOST = 12


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A judged row. inputs: as shown; facts: its label, what a rung answers and its score, by name."""

    inputs: list[Shown]
    facts: list[tuple[str, str]]


def worst_accepted(evidence: Evidence, labels: Sequence[str]) -> list[ShownRow]:
    """Rows that were answered wrongly, those with the least suspicion first."""
    answer = answered_class(evidence)
    suspicion = _suspicion(evidence)
    wrong = np.flatnonzero((answer >= 0) & (answer != evidence.rows.y) & ~np.isnan(suspicion))
    return [
        _row(evidence, labels, i, answer, int(evidence.by[i]), [("suspicion", number(suspicion[i]))])
        for i in _first(wrong, suspicion)
    ]


def nearest_refused(evidence: Evidence, labels: Sequence[str]) -> list[ShownRow]:
    """Rows that the guards stopped, those just above the cut first, with what the primary would have said."""
    if evidence.joint is None:
        return []
    predicted = predicted_class(evidence, 0)
    stopped = np.flatnonzero(evidence.stopped & ~np.isnan(evidence.joint))
    return [
        _row(evidence, labels, i, predicted, 0, _stopped_by(evidence, evidence.joint, i))
        for i in _first(stopped, evidence.joint)
    ]


def _first(rows: RowIndices, order: F8) -> list[int]:
    return [int(i) for i in rows[np.argsort(order[rows], kind="stable")][:MOST]]


def _suspicion(evidence: Evidence) -> F8:
    """float64[n]: of the rung that answers; of one without a check, 1 less its largest probability."""
    found = np.full(len(evidence.rows), np.nan)
    for i, rung in enumerate(evidence.rungs):
        own = rung.suspicion
        if own is None and rung.probabilities is not None and rung.probabilities.ndim == 2:
            own = 1.0 - rung.probabilities.max(axis=1).astype(np.float64)
        if own is not None:
            found = np.where(evidence.by == i, own, found)
    return found


def _stopped_by(evidence: Evidence, joint: F8, i: int) -> list[tuple[str, str]]:
    names = [one.name for one in evidence.guards if one.enforced and one.scores[i] >= one.cut]
    return [("risk", number(float(joint[i]))), ("by", ", ".join(names) or "–")]


def _row(
    evidence: Evidence,
    labels: Sequence[str],
    i: int,
    answers: NDArray[Any] | None,
    rung: int,
    facts: list[tuple[str, str]],
) -> ShownRow:
    """answers: int64[n], the classes that the rung predicts, None if it predicts none."""
    said = "–" if answers is None else label_name(int(answers[i]), labels)
    inputs = [show(name, np.asarray(array[i], array.dtype)) for name, array in evidence.rows.x.items()]
    label = label_name(int(evidence.rows.y[i]), labels)
    return ShownRow(inputs, [("label", label), (evidence.rungs[rung].name, said), *facts])
