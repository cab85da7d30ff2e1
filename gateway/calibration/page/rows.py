"""The rows at which to look first: the worst that were accepted and the nearest that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.calibration.evidence import Evidence
from gateway.calibration.page.facts import Facts, row_facts
from gateway.calibration.page.formatting import number
from gateway.calibration.page.numbers import answered_numbers
from gateway.calibration.page.pictures import Shown, show
from gateway.calibration.slices import wrongly_answered
from gateway.core.rows import F8, Mask, RowIndices

MOST = 12


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A judged row. inputs: as shown; facts: what is true, what a rung answers and its score, by name."""

    inputs: list[Shown]
    facts: Facts


def worst_accepted(evidence: Evidence, labels: Sequence[str]) -> list[ShownRow]:
    """Rows that were answered wrongly: classes by suspicion, the least first; numbers the farthest first."""
    wrong, order, score = _worst(evidence)
    rows = _first(np.flatnonzero(wrong), order)
    facts = [row_facts(evidence, labels, depth) for depth in range(len(evidence.rungs))]
    return [_row(evidence, i, [*facts[int(evidence.by[i])](i), *_known(score, order[i])]) for i in rows]


def nearest_refused(evidence: Evidence, labels: Sequence[str]) -> list[ShownRow]:
    """Rows that the guards stopped, those just above the cut first, with what the primary would have said."""
    if evidence.joint is None:
        return []
    stopped = np.flatnonzero(evidence.stopped & ~np.isnan(evidence.joint))
    facts = row_facts(evidence, labels, 0)
    return [
        _row(evidence, i, [*facts(i), *_stopped_by(evidence, evidence.joint, i)])
        for i in _first(stopped, evidence.joint)
    ]


def _worst(evidence: Evidence) -> tuple[Mask, F8, str]:
    """bool[n], the rows; float64[n], their order; and the name under which it is shown, if it is."""
    numbers = answered_numbers(evidence)
    if numbers is None:
        return wrongly_answered(evidence), _suspicion(evidence), "suspicion"
    far = numbers.error if np.isnan(numbers.width).all() else numbers.beyond
    return np.asarray(far > 0), -far, ""


def _known(name: str, value: float) -> Facts:
    return [(name, number(float(value)))] if name and not np.isnan(value) else []


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


def _stopped_by(evidence: Evidence, joint: F8, i: int) -> Facts:
    names = [one.name for one in evidence.guards if one.enforced and one.scores[i] >= one.cut]
    return [("risk", number(float(joint[i]))), ("by", ", ".join(names) or "–")]


def _row(evidence: Evidence, i: int, facts: Facts) -> ShownRow:
    inputs = [show(name, np.asarray(array[i], array.dtype)) for name, array in evidence.rows.x.items()]
    return ShownRow(inputs, facts)
