"""What the guards measure of a batch: for all of them at once, in two graphs, each run once a batch.

`input_graph` needs the input alone, so it runs while the model's thread is busy with the forward pass;
`answer_graph` takes its numbers and the model's answer. Each guard then reads its own columns. Two graphs
instead of one a guard, because what guards have in common (features at unit length, the nearest prototype) is
then computed once, and the few steps that each needs for itself are too short for a call of their own.
`input_only_graph` measures the rows for which the model gave no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gateway.core.batch import Batch
from gateway.core.decision import Tensors
from gateway.core.rows import F8
from gateway.deployment.graph import Graph, record
from gateway.policy.kinds.kind import FittedGuard, GuardColumns

BEFORE = "before"
"""The array of `input_graph`'s columns among what `answer_graph` reads."""
NamedArrays: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """The graphs over one model's answers, and at which column each guard's numbers begin.

    model: the rung whose answer is read; source: the input that guards read; columns, input_only_columns: the
    first column of each guard by name, in the full form and in the one that needs the input alone.
    """

    model: str
    source: str
    input_graph: Graph | None
    answer_graph: Graph | None
    input_only_graph: Graph | None
    columns: Mapping[str, int]
    input_only_columns: Mapping[str, int]

    def prefetch(self, batch: Batch) -> None:
        """Measures the input, if that is to be measured; worth doing while the model is at work."""
        if self.input_graph is not None:
            batch.once(self.input_graph, self._input(batch))

    async def full(self, batch: Batch) -> F8:
        """float64[n, columns]. Raises what the model's pass or a graph raises."""
        assert self.answer_graph is not None
        found = batch.measured(self.answer_graph)
        if found is not None:
            return found
        arrays = dict(await batch.forward(self.model))
        if self.input_graph is not None:
            arrays[BEFORE] = batch.once(self.input_graph, self._input(batch))
        return batch.once(self.answer_graph, arrays)

    async def input_only(self, batch: Batch) -> F8:
        """float64[n, columns] from the input alone."""
        assert self.input_only_graph is not None
        return batch.once(self.input_only_graph, self._input(batch))

    def columns_of(self, guard: str) -> GuardColumns:
        """Where a guard finds its numbers."""
        return GuardColumns(self.full, self.columns[guard], self.model, self.source)

    def _input(self, batch: Batch) -> Tensors:
        """What the guards see of the input, as float32 whatever the model takes."""
        return {"x": np.asarray(batch.inputs[self.source], np.float32)}


def measures(model: str, source: str, guards: Mapping[str, FittedGuard], like: Tensors) -> Measures:
    """Records what fitted guards measure.

    Args:    source: the input that they look at. like: a few rows of it as `x`, float32, and the model's
             answer to them.
    Raises:  ValueError from the guard that the model's outputs do not suit, or as `record`.
    """
    formulas = _Formulas(guards, like["x"])
    alone = [name for name, guard in guards.items() if guard.input_only is not None]
    first = record("guards", formulas.input_columns, like) if formulas.any_of_input else None
    known = dict(like) if first is None else {**like, BEFORE: first.run(like)}
    widths = {name: len(columns) for name, columns in formulas.answer_columns_by_guard(known).items()}
    return Measures(
        model,
        source,
        first,
        record("guards", formulas.answer_columns, known) if guards else None,
        record("guards without features", formulas.input_only_columns, like) if alone else None,
        _first_columns(widths),
        {name: i for i, name in enumerate(alone)},
    )


class _Formulas:
    """What the guards measure, as functions of named arrays that can be recorded."""

    def __init__(self, guards: Mapping[str, FittedGuard], x: Any) -> None:
        self._guards = guards
        self._widths = {name: len(guard.input_columns(x)) for name, guard in guards.items()}
        self._firsts = _first_columns(self._widths)

    @property
    def any_of_input(self) -> bool:
        """Whether a guard measures the input before the model answers."""
        return any(self._widths.values())

    def input_columns(self, arrays: NamedArrays) -> F8:
        found: list[Any] = []
        for name, guard in self._guards.items():
            with _naming(name):
                found += guard.input_columns(arrays["x"])
        return _stacked(found)

    def answer_columns(self, arrays: NamedArrays) -> F8:
        found = self.answer_columns_by_guard(arrays)
        return _stacked(column for columns in found.values() for column in columns)

    def input_only_columns(self, arrays: NamedArrays) -> F8:
        found: list[Any] = []
        for name, guard in self._guards.items():
            if guard.input_only is not None:
                with _naming(name):
                    found.append(guard.input_only.score(arrays["x"]))
        return _stacked(found)

    def answer_columns_by_guard(self, arrays: NamedArrays) -> dict[str, Sequence[F8]]:
        found: dict[str, Sequence[F8]] = {}
        for name, guard in self._guards.items():
            with _naming(name):
                found[name] = guard.answer_columns(arrays["x"], arrays, self._before(name, arrays))
        return found

    def _before(self, name: str, arrays: NamedArrays) -> list[Any]:
        """A guard's own columns of `input_columns`."""
        first = self._firsts[name]
        return [arrays[BEFORE][:, first + i] for i in range(self._widths[name])]


@contextmanager
def _naming(guard: str) -> Iterator[None]:
    """Names the guard whose formula uses what no graph can hold. Raises ValueError."""
    try:
        yield
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"guards.{guard}: {error}; docs/adding-a-guard.md lists what can be recorded"
        ) from error


def _first_columns(widths: Mapping[str, int]) -> dict[str, int]:
    """At which column each guard begins, in the order of the policy."""
    firsts, at = {}, 0
    for name, width in widths.items():
        firsts[name] = at
        at += width
    return firsts


def _stacked(columns: Iterable[Any]) -> F8:
    return np.stack(list(columns), axis=1)
