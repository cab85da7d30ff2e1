"""Populations of suspicions and errors for `compare.py`: real ones, flat ones, and one that peaks early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.validity.pools import POOLS
from fallbacks.roles import PROBABILITIES
from guards.rows import F8
from guards.selective import Labelled

ATOMS = 10_000
PILOT_ROWS = 7 / 3
"""Pilot rows for each test row: the folds `tail` and `cut` beside `risk`."""


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCurve:
    """A population of equally likely atoms. suspicion: float64[m]; error: the share wrong at each."""

    suspicion: F8
    error: F8

    def draw(self, rows: int, rng: np.random.Generator) -> Labelled:
        """Independent rows."""
        at = rng.integers(0, len(self.suspicion), rows)
        return Labelled(self.suspicion[at], rng.random(rows) < self.error[at])

    def below(self, cut: float) -> tuple[float, float]:
        """The true share that lies below a cut, and the true share of these that is wrong."""
        accepted = self.suspicion < cut
        return float(accepted.mean()), float(self.error[accepted].mean()) if accepted.any() else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """A population, the number of rows that test, and the promise."""

    name: str
    curve: ErrorCurve
    test_rows: int
    r: float


def scenarios() -> Iterator[Scenario]:
    """All that are compared. Cost: seconds, for the answers of the real models."""
    for data, promises in (("images", (0.05, 0.08)), ("letters", (0.02, 0.035))):
        curve = _of_pool(data)
        for rows in (300, 1_000, 3_000):
            for r in promises:
                yield Scenario(data, curve, rows, r)
    for r in (0.25, 0.1, 0.05):
        yield Scenario(f"flat {0.8 * r:.0%}", _flat(0.8 * r), 1_000, r)
    yield Scenario("flat 10%", _flat(0.1), 350, 0.25)
    for r in (0.1, 0.05):
        yield Scenario("peak among the surest", _peak(), 1_000, r)


def _of_pool(data: str) -> ErrorCurve:
    rows = POOLS[data]().rows
    p = rows.answers[rows.primary][PROBABILITIES]
    return ErrorCurve(np.asarray(1 - p.max(1), np.float64), (p.argmax(1) != rows.y).astype(np.float64))


def _flat(error: float) -> ErrorCurve:
    return ErrorCurve(_places(), np.full(ATOMS, error))


def _peak() -> ErrorCurve:
    """30 % wrong among the surest twentieth, and 1 % of all others: 2.45 % of all."""
    places = _places()
    return ErrorCurve(places, np.where(places < 0.05, 0.3, 0.01))


def _places() -> F8:
    return (np.arange(ATOMS) + 0.5) / ATOMS
