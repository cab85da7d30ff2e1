"""The measures of all guards in two graphs, each run once a batch.

`input_graph` needs the input alone, so it runs while the model's thread computes the forward pass;
`answer_graph` reads its columns and the model's answer. Each guard then reads its own columns. Two graphs
instead of one a guard, because what guards share (features at unit length, the nearest prototype) is then
computed once, and the few remaining steps of each are too short for a call of their own.
`input_only_graph` measures the rows for which the model gave no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fallbacks.roles import FEATURES, LOGITS, PROBABILITIES
from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.deployment.graph import Graph, record
from gateway.policy.kinds.kind import FittedGuard, GuardColumns
from guards.row_view import PICTURE, TABLE, RowView
from guards.rows import Signals

INPUT_COLUMNS = "before"
"""The name of `input_graph`'s columns among the inputs of `answer_graph`."""
READ_OUTPUTS = frozenset({PROBABILITIES, LOGITS, FEATURES})
"""The outputs that guards may read."""
NamedArrays: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """The graphs over one model's answers, and the first column of each guard.

    model: the rung whose answer is read; view: how guards read the inputs; columns, input_only_columns: the
    first column of each guard by name, in the full and in the input-only form.
    """

    model: str
    view: RowView
    input_graph: Graph | None
    answer_graph: Graph | None
    input_only_graph: Graph | None
    columns: Mapping[str, int]
    input_only_columns: Mapping[str, int]

    def prefetch(self, batch: Batch) -> None:
        """Runs `input_graph`, if there is one, while the model runs."""
        if self.input_graph is not None:
            self._input_columns(batch, self.input_graph)

    async def full(self, batch: Batch) -> F8:
        """float64[n, columns]. Raises what the model's pass or a graph raises."""
        assert self.answer_graph is not None
        found = batch.measured(self.answer_graph)
        if found is not None:
            return found
        arrays = dict(await batch.forward(self.model))
        if self.input_graph is not None:
            arrays[INPUT_COLUMNS] = self._input_columns(batch, self.input_graph)
        return batch.measure(self.answer_graph, arrays)

    async def input_only(self, batch: Batch) -> F8:
        """float64[n, columns] from the input alone."""
        assert self.input_only_graph is not None
        return self._input_columns(batch, self.input_only_graph)

    def columns_of(self, guard: str) -> GuardColumns:
        """The columns of one guard."""
        return GuardColumns(self.full, self.columns[guard], self.model, self.view.picture)

    def _input_columns(self, batch: Batch, graph: Graph) -> F8:
        found = batch.measured(graph)
        return batch.measure(graph, self.view.arrays(batch.inputs)) if found is None else found


def measures(
    model: str, view: RowView, guards: Mapping[str, FittedGuard], x: Tensors, outputs: Tensors
) -> Measures:
    """Records the measures of fitted guards.

    Args:    x, outputs: a few rows, and the model's answer to them.
    Raises:  ValueError from the guard that the model's outputs do not suit, or as `record`.
    """
    inputs = view.arrays(x)
    answer = {name: array for name, array in outputs.items() if name in READ_OUTPUTS}
    formulas = _Formulas(guards, inputs)
    alone = [name for name, guard in guards.items() if guard.input_only is not None]
    first = record("guards", formulas.input_columns, inputs) if formulas.any_input_columns else None
    known = answer if first is None else {**answer, INPUT_COLUMNS: first.run(inputs)}
    widths = {name: len(columns) for name, columns in formulas.answer_columns_by_guard(known).items()}
    return Measures(
        model,
        view,
        first,
        record("guards", formulas.answer_columns, known) if guards else None,
        record("guards without features", formulas.input_only_columns, inputs) if alone else None,
        _first_columns(widths),
        {name: i for i, name in enumerate(alone)},
    )


def columns_on(
    view: RowView, guards: Mapping[str, FittedGuard], x: Tensors, outputs: Tensors
) -> dict[str, F8]:
    """float64[n, columns] of the guards' own formulas: `full` and `input_only`, as far as there are such.

    Raises:  ValueError from a guard that the rows or the model's outputs do not suit.
    """
    inputs = view.arrays(x)
    known = {name: array for name, array in outputs.items() if name in READ_OUTPUTS}
    formulas, found = _Formulas(guards, inputs), {}
    if formulas.any_input_columns:
        known[INPUT_COLUMNS] = formulas.input_columns(inputs)
    if guards:
        found["full"] = formulas.answer_columns(known)
    if any(guard.input_only is not None for guard in guards.values()):
        found["input_only"] = formulas.input_only_columns(inputs)
    return found


def _signals(arrays: NamedArrays) -> Signals:
    """Recorded arrays as what detectors read."""
    return Signals(arrays.get(PICTURE), arrays.get(TABLE), arrays.get(FEATURES), arrays.get(LOGITS))


class _Formulas:
    """The measures of the guards, as functions of named arrays that can be recorded."""

    def __init__(self, guards: Mapping[str, FittedGuard], inputs: NamedArrays) -> None:
        self._guards = guards
        self._widths: dict[str, int] = {}
        for name, guard in guards.items():
            with _name_guard_in_error(name):
                self._widths[name] = len(guard.input_columns(_signals(inputs)))
        self._first_column = _first_columns(self._widths)

    @property
    def any_input_columns(self) -> bool:
        """Whether a guard measures the input before the model answers."""
        return any(self._widths.values())

    def input_columns(self, arrays: NamedArrays) -> F8:
        found: list[Any] = []
        for name, guard in self._guards.items():
            with _name_guard_in_error(name):
                found += guard.input_columns(_signals(arrays))
        return _stacked(found)

    def answer_columns(self, arrays: NamedArrays) -> F8:
        found = self.answer_columns_by_guard(arrays)
        return _stacked(column for columns in found.values() for column in columns)

    def input_only_columns(self, arrays: NamedArrays) -> F8:
        found: list[Any] = []
        for name, guard in self._guards.items():
            if guard.input_only is not None:
                with _name_guard_in_error(name):
                    found.append(guard.input_only.score(_signals(arrays)))
        return _stacked(found)

    def answer_columns_by_guard(self, arrays: NamedArrays) -> dict[str, Sequence[F8]]:
        found: dict[str, Sequence[F8]] = {}
        for name, guard in self._guards.items():
            with _name_guard_in_error(name):
                scores = self._input_scores(name, arrays)
                found[name] = guard.answer_columns(_signals(arrays), arrays, scores)
        return found

    def _input_scores(self, name: str, arrays: NamedArrays) -> list[Any]:
        """A guard's own columns of `input_columns`."""
        first = self._first_column[name]
        return [arrays[INPUT_COLUMNS][:, first + i] for i in range(self._widths[name])]


@contextmanager
def _name_guard_in_error(guard: str) -> Iterator[None]:
    """Raises ValueError naming the guard if its formula cannot be recorded."""
    try:
        yield
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"guards.{guard}: {error}; docs/adding-a-guard.md lists what can be recorded"
        ) from error


def _first_columns(widths: Mapping[str, int]) -> dict[str, int]:
    """The first column of each guard, in the order of the policy."""
    firsts, at = {}, 0
    for name, width in widths.items():
        firsts[name] = at
        at += width
    return firsts


def _stacked(columns: Iterable[Any]) -> F8:
    return np.stack(list(columns), axis=1)
