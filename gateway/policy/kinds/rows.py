"""Labelled held-out rows, on which a kind is fitted and certified."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from guards.rows import Signals

Labels: TypeAlias = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationRows:
    """n labelled rows with the answers of every rung.

    x: the inputs by name; y: int64[n]; answers: outputs by rung; primary: the first rung; source: the input
    that guards read; ask_primary: the first rung's outputs for other inputs, any number of rows.
    """

    x: Tensors
    y: Labels
    answers: Mapping[str, Tensors]
    primary: str
    source: str
    ask_primary: Callable[[Tensors], Tensors]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def signals(self) -> Signals:
        """The input that guards read, and the first rung's features and logits where it has them.

        Numbers are float32, as when serving: a guard may not be fitted on digits that it will not see.
        """
        answer, x = self.answers[self.primary], self.x[self.source]
        with np.errstate(over="ignore"):  # infinite, as when serving
            as_served = x if x.dtype.kind == "O" else np.asarray(x, np.float32)
        return Signals(as_served, answer.get("features"), answer.get("logits"))

    def take(self, rows: NDArray[np.intp]) -> CalibrationRows:
        """The given rows, in the given order."""

        def of(tensors: Tensors) -> Tensors:
            return {name: array[rows] for name, array in tensors.items()}

        answers = {name: of(answer) for name, answer in self.answers.items()}
        return CalibrationRows(of(self.x), self.y[rows], answers, self.primary, self.source, self.ask_primary)

    def beside(self, other: CalibrationRows) -> CalibrationRows:
        """These rows, then others with the same models."""

        def both(one: Tensors, more: Tensors) -> Tensors:
            return {name: np.concatenate([array, more[name]]) for name, array in one.items()}

        answers = {name: both(answer, other.answers[name]) for name, answer in self.answers.items()}
        y = np.concatenate([self.y, other.y])
        return CalibrationRows(both(self.x, other.x), y, answers, self.primary, self.source, self.ask_primary)


@dataclass(frozen=True, slots=True, eq=False)
class FittingFolds:
    """The rows on which a kind is fitted.

    fit: for detectors; tail: disjoint, for the rarity of each score; seed: for random draws.
    """

    fit: CalibrationRows
    tail: CalibrationRows
    seed: int


def run_without_waiting(guard: Coroutine[Any, Any, T]) -> T:
    """The result of a guard's `score` over `CalibrationRows`, which never wait.

    Raises:  RuntimeError if it waits for something after all.
    """
    try:
        guard.send(None)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]
    guard.close()
    raise RuntimeError("a guard waited for something else than its rows")
