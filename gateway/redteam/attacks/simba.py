"""SimBA: score-based, one direction of a basis at a time.

Guo, Gardner, You, Wilson, Weinberger: Simple black-box adversarial attacks, ICML 2019, Algorithm 1: a step of
+-epsilon along a direction is kept if the label's probability falls. Pictures: the cosine basis, of which the
lowest quarter of the frequencies comes first (SimBA-DCT); tables: one column at a time.

Deviations: epsilon is a fifth of the radius; a row beyond the radius is drawn back to it, so that directions
go on being tried; after the last direction it begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.run import Run

STEPS = 5
"""A radius holds as many steps in one direction."""
LOW = 2
"""The lowest 1 / LOW of the frequencies of each axis come first."""


def simba(run: Run, rng: np.random.Generator, others: F8) -> None:
    """Descends until the run is over."""
    del others
    row, least = run.start, 1.0
    least = _score(run.ask(row), run.label, least)
    asked = -1
    while asked != run.tally.queries:  # on the grid a whole pass may leave nothing to ask
        asked = run.tally.queries
        for direction in basis(run, rng):
            stride = stride_of(run, direction)
            for trial in (_moved(run, row, stride * direction), _moved(run, row, -stride * direction)):
                if trial is None:
                    continue
                score = _score(run.ask(trial), run.label, least)
                if score < least:
                    row, least = trial, score
                    break


def _moved(run: Run, row: F8, by: F8) -> F8 | None:
    """The row after a step, drawn back to the radius; None where it cannot be moved so."""
    moved = run.space.clip(run.within.project(run.space.clip(row + by), run.start))
    within = not run.space.lattice or run.within.holds(run.distance(moved))
    return moved if within and (moved != row).any() else None


def stride_of(run: Run, direction: F8) -> float:
    """A fifth of the radius; for one column on the grid, at least to its next value."""
    step = run.within.radius / STEPS
    if not run.space.lattice or np.count_nonzero(direction) > 1:
        return step
    return max(step, float(run.space.grid[int(np.argmax(np.abs(direction)))]))


def _score(answer: Answer, label: int, otherwise: float) -> float:
    """The label's probability: 1 or 0 where only a label is told; `otherwise` without an answer."""
    if answer.p is not None:
        return float(answer.p[label])
    return otherwise if answer.label is None else float(answer.label == label)


def basis(run: Run, rng: np.random.Generator) -> Iterator[F8]:
    """Orthonormal directions float64[d], in random order. Cost: d numbers each."""
    shape = run.space.picture
    if shape is None:
        for k in rng.permutation(run.space.size).tolist():
            yield np.eye(1, run.space.size, k)[0]
        return
    channels, height, width = shape
    rows, columns = cosines(height), cosines(width)
    every = [(c, i, j) for c in range(channels) for i in range(height) for j in range(width)]
    low = [one for one in every if one[1] < height // LOW and one[2] < width // LOW]
    high = [one for one in every if one[1] >= height // LOW or one[2] >= width // LOW]
    for part in (low, high):
        for k in rng.permutation(len(part)).tolist():
            channel, i, j = part[k]
            made = np.zeros(shape)
            made[channel] = np.outer(rows[i], columns[j])
            yield (np.moveaxis(made, 0, 2) if run.space.channels_last else made).reshape(-1)


def cosines(n: int) -> F8:
    """float64[n, n]: the orthonormal cosine transform (DCT-II), a frequency a line."""
    k, x = np.arange(n)[:, None], np.arange(n)[None, :]
    waves = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.sqrt(2 / n)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves)
