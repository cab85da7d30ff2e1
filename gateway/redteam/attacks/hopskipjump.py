"""HopSkipJump: decision-based, by the gradient's direction at the boundary.

Chen, Jordan, Wainwright: HopSkipJumpAttack, a query-efficient decision-based attack, IEEE S&P 2020.
Algorithm 2 with the authors' constants: theta = d^-3/2 (L2) or d^-2 (Linf), 100 sqrt(t) probes, step ||x -
x*|| / sqrt(t).

Deviations: it begins with a real row of another class (`starts.py`); probes without an answer are left out of
the estimate; the first probes' radius is a tenth of the median column's range, as there of the pixel range.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.attacks.starts import first_wrong
from gateway.redteam.run import Run

FIRST_PROBES, MOST_PROBES, HALVINGS = 100, 10_000, 20


def hopskipjump(run: Run, rng: np.random.Generator, others: F8) -> None:
    """Moves along the boundary until the run is over; returns where no row of another class is found."""
    found = first_wrong(run, rng, others)
    if found is None:
        return
    size = run.space.size
    theta = size**-1.5 if run.within.norm == "l2" else size**-2.0
    near = to_boundary(run, found, theta)
    for t in count(1):
        away = run.distance(near)
        radius = first_radius(run) if t == 1 else away / size
        probes = directions(run, rng, min(int(FIRST_PROBES * np.sqrt(t)), MOST_PROBES))
        step = estimate(run, near, radius, probes)
        near = to_boundary(run, forward(run, near, step, away / np.sqrt(t)), theta)


def first_radius(run: Run) -> float:
    """A tenth of the median range of a column."""
    return 0.1 * float(np.median(run.space.high - run.space.low))


def directions(run: Run, rng: np.random.Generator, n: int) -> F8:
    """float64[n, d]: random unit vectors; for Linf uniform in the cube, as the authors' code has it."""
    if run.within.norm == "linf":
        drawn = rng.uniform(-1, 1, (n, run.space.size))
    else:
        drawn = rng.standard_normal((n, run.space.size))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def estimate(run: Run, near: F8, radius: float, probes: F8) -> F8:
    """float64[d]: the direction in which more probes are answered with another class; its sign for Linf."""
    rows = run.space.clip(near + radius * probes)
    answers = run.ask_all(rows)
    known = np.array([one.label is not None for one in answers])
    wrong = np.array([1.0 if run.is_wrong(one) else -1.0 for one in answers])
    moved = (rows - near) / radius
    return direction_of(run, moved[known], wrong[known])


def direction_of(run: Run, moved: F8, wrong: F8) -> F8:
    """Of n probes that were answered with another class (1) or not (-1); zero without any."""
    if not len(wrong):
        return np.zeros(run.space.size)
    mean = float(wrong.mean())
    weights = wrong if abs(mean) == 1 else wrong - mean
    direction = np.asarray(weights @ moved / len(wrong))
    if run.within.norm == "linf":
        return np.sign(direction)
    return direction / max(float(np.linalg.norm(direction)), 1e-30)


def forward(run: Run, near: F8, direction: F8, step: float) -> F8:
    """The farthest of the steps 1, 1/2, 1/4, ... whose row is still answered with another class."""
    for _ in range(HALVINGS):
        row = run.space.clip(near + step * direction)
        if run.wrong(row):
            return row
        step /= 2
    return near


def between(run: Run, far: F8, part: float) -> F8:
    """The row at a part (0 to 1) of the way from the start to a row: on the line, or drawn into the cube."""
    if run.within.norm == "l2":
        return run.start + part * (far - run.start)
    reach = part * float(np.abs(far - run.start).max())
    return np.clip(far, run.start - reach, run.start + reach)


def to_boundary(run: Run, far: F8, precision: float) -> F8:
    """The nearest row of another class towards the start, found by bisection to a part of the way."""
    low, high = 0.0, 1.0
    while high - low > precision:
        middle = (low + high) / 2
        if run.wrong(between(run, far, middle)):
            high = middle
        else:
            low = middle
    return between(run, far, high)
