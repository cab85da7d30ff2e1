"""Held-out rows, on which a kind is fitted and certified."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.core.rows import F8
from guards.row_view import RowView
from guards.rows import Signals

Labels: TypeAlias = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationRows:
    """n held-out rows with the answers of every rung.

    x: the inputs by name; y: int64[n], the true classes, zeros where the task has none; truth: float64[n],
    the true values of a regression, else None; answers: outputs by rung; labelled: int64[n], the class that
    output `label` names, by rung, where there is one; primary: the first rung; view: how guards read the
    inputs; ask_primary: the first rung's outputs for other inputs, any number of rows.
    """

    x: Tensors
    y: Labels
    truth: F8 | None
    answers: Mapping[str, Tensors]
    labelled: Mapping[str, Labels]
    primary: str
    view: RowView
    ask_primary: Callable[[Tensors], Tensors]

    @classmethod
    def classified(
        cls,
        x: Tensors,
        y: Labels,
        answers: Mapping[str, Tensors],
        primary: str,
        ask_primary: Callable[[Tensors], Tensors],
    ) -> CalibrationRows:
        """Rows of true classes whose answers have no output `label`; the view is fitted on all of them."""
        return cls(x, y, None, answers, {}, primary, RowView.fit(x, frozenset()), ask_primary)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def signals(self) -> Signals:
        """The inputs as guards read them, and the first rung's features and logits where it has them."""
        return self.view.signals(self.x, self.answers[self.primary])

    def take(self, rows: NDArray[np.intp]) -> CalibrationRows:
        """The given rows, in the given order."""

        def of(tensors: Tensors) -> Tensors:
            return {name: array[rows] for name, array in tensors.items()}

        answers = {name: of(answer) for name, answer in self.answers.items()}
        truth = None if self.truth is None else self.truth[rows]
        labelled = of(self.labelled)
        return replace(self, x=of(self.x), y=self.y[rows], truth=truth, answers=answers, labelled=labelled)

    def beside(self, other: CalibrationRows) -> CalibrationRows:
        """These rows, then others with the same models."""

        def both(one: Tensors, more: Tensors) -> Tensors:
            return {name: np.concatenate([array, more[name]]) for name, array in one.items()}

        answers = {name: both(answer, other.answers[name]) for name, answer in self.answers.items()}
        y = np.concatenate([self.y, other.y])
        truth = None
        if self.truth is not None and other.truth is not None:
            truth = np.concatenate([self.truth, other.truth])
        labelled = both(self.labelled, other.labelled)
        x = both(self.x, other.x)
        return replace(self, x=x, y=y, truth=truth, answers=answers, labelled=labelled)


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
