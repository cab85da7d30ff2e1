"""The scores that serving would give to held-out rows, by the guards and graphs that serve.

A fold is judged as requests are: the recorded graphs, the input as float32 whatever the model's datatype,
squeezed rows asked again. Numpy's formulas are used to fit alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.core.model import Forward
from gateway.core.rows import F8, RowIndices, all_true, row_indices
from gateway.deployment.measures import Measures, measures
from gateway.policy.kinds.column import Column
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import CalibrationRows, run_without_waiting

BATCH_ROWS = 128
EXAMPLE_ROWS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """n rows with the scores of every fitted guard by name, float64[n] nats.

    input_only: of the guards that have such a form.
    """

    rows: CalibrationRows
    full: Mapping[str, F8]
    input_only: Mapping[str, F8]

    def beside(self, other: Judged) -> Judged:
        """These rows, then others judged by the same guards."""

        def both(one: Mapping[str, F8], more: Mapping[str, F8]) -> dict[str, F8]:
            return {name: np.concatenate([scores, more[name]]) for name, scores in one.items()}

        return Judged(
            self.rows.beside(other.rows),
            both(self.full, other.full),
            both(self.input_only, other.input_only),
        )


def measures_on(rows: CalibrationRows, fitted: Mapping[str, FittedGuard]) -> Measures:
    """The graphs of the fitted guards, recorded on some of these rows. Raises ValueError as `measures`."""
    few = rows.take(np.arange(min(EXAMPLE_ROWS, len(rows))))
    return measures(few.primary, few.view, fitted, few.x, few.answers[few.primary])


def judge(rows: CalibrationRows, fitted: Mapping[str, FittedGuard], measured: Measures) -> Judged:
    """Every guard's scores for these rows.

    Raises:  ValueError where a score is no finite number, naming the guard.
    Cost:    that of the guards when serving, in batches of 128; no forward pass but of squeezed rows.
    """
    guards = {name: one.guard(measured.columns_of(name)) for name, one in fitted.items()}
    alone = {name: Column(measured.input_only, at) for name, at in measured.input_only_columns.items()}
    full: dict[str, list[F8]] = {name: [] for name in guards}
    input_only: dict[str, list[F8]] = {name: [] for name in alone}
    for batch in _batches(rows):
        for name, guard in guards.items():
            full[name].append(run_without_waiting(guard.score(batch)))
        for name, column in alone.items():
            input_only[name].append(run_without_waiting(column.score(batch)))
    return Judged(rows, _joined(full), _joined(input_only))


def _joined(parts: Mapping[str, list[F8]]) -> dict[str, F8]:
    found = {name: np.concatenate([np.empty(0), *scores]) for name, scores in parts.items()}
    for name, scores in found.items():
        if not np.isfinite(scores).all():
            bad = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise ValueError(f"guards.{name}: its score of a held-out row is {scores[bad]}; mend the guard")
    return found


@dataclass(slots=True, eq=False)
class _AnsweredBatch(Batch):
    """A batch whose model has answered already; further questions are asked at once, without a loop."""

    rows: CalibrationRows | None = field(default=None)

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        assert self.rows is not None
        assert model == self.rows.primary, "guards ask the first rung alone"
        return self.rows.ask_primary(inputs)


def batch_of(rows: CalibrationRows, at: RowIndices) -> Batch:
    """Some of the rows as one batch, with what the primary answered."""
    ids = tuple(f"row-{i}" for i in at)
    inputs = {name: array[at] for name, array in rows.x.items()}
    answer: dict[str, Any] = {name: array[at] for name, array in rows.answers[rows.primary].items()}
    known = {rows.primary: Forward(answer, all_true(len(at)), True, 0.0)}
    return _AnsweredBatch(ids, ids, inputs, (math.inf,) * len(at), {}, _memo=known, rows=rows)


def _batches(rows: CalibrationRows) -> Iterator[Batch]:
    every = row_indices(len(rows))
    for first in range(0, len(rows), BATCH_ROWS):
        yield batch_of(rows, every[first : first + BATCH_ROWS])
