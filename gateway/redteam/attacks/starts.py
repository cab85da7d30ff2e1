"""Where decision-based attacks begin: a row that is answered with another class."""

from __future__ import annotations

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.run import Run

REAL, NOISE = 20, 10


def first_wrong(run: Run, rng: np.random.Generator, others: F8) -> F8 | None:
    """A row of another class: a real one of float64[n, d], else uniform noise; None if none is found.

    The papers begin with noise. A gateway answers no noise, and an attacker has rows of other classes.
    """
    for i in rng.permutation(len(others))[:REAL].tolist():
        if run.wrong(others[i]):
            return np.asarray(others[i])
    for _ in range(NOISE):
        row = rng.uniform(run.space.low, run.space.high)
        if run.wrong(row):
            return row
    return None
