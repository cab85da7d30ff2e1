"""Models to attack whose every answer is known, and a watcher who counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import SERVED, Answer
from gateway.redteam.space import Column, Space

PICTURE = Column("image", np.dtype(np.float32), (1, 8, 8))
TABLE = Column("x", np.dtype(np.float32), (6,))


@dataclass
class Linear:
    """A softmax of a linear map, float64[d, k], of what lies off the centre; counts its rows."""

    weights: F8
    centre: float = 0.0
    rows_a_request: int = 1
    asked: int = 0

    def probabilities(self, rows: F8) -> F8:
        z = (rows - self.centre) @ self.weights
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        self.asked += len(rows)
        return [Answer(SERVED, "ok", int(one.argmax()), one) for one in self.probabilities(rows)]


@dataclass
class Scripted:
    """Answers the n-th row, from 1, as a function says."""

    script: Callable[[int, F8], Answer]
    rows_a_request: int = 1
    rows: list[F8] = field(default_factory=list)

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        found = []
        for row in rows:
            self.rows.append(row)
            found.append(self.script(len(self.rows), row))
        return found


@dataclass
class Counter:
    """A watcher; raises KeyboardInterrupt at a query, if asked to."""

    interrupt_at: int = 0
    begun: list[str] = field(default_factory=list)
    sent: int = 0

    def begin(self, name: str, total: int) -> None:
        self.begun.append(name)

    def done(self, parts: int) -> None:
        pass

    def queries(self, n: int) -> None:
        self.sent += n
        if self.interrupt_at and self.sent >= self.interrupt_at:
            raise KeyboardInterrupt


def picture_space(low: float = 0.0, high: float = 1.0) -> Space:
    """8x8 grey pictures whose values are of any precision."""
    rows = np.random.default_rng(0).uniform(low, high, (50, 1, 8, 8)).astype(np.float32)
    rows[0, 0, 0, :2] = low, high
    return Space.of((PICTURE,), {"image": rows})


def linear_model(seed: int = 0, columns: int = 64, classes: int = 3) -> Linear:
    """Of rows from 0 to 1, about as many in each class."""
    return Linear(np.random.default_rng(seed).standard_normal((columns, classes)), 0.5)
