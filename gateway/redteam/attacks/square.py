"""The Square attack: score-based, random squares at the edge of the Linf ball.

Andriushchenko, Croce, Flammarion, Hein: Square attack, ECCV 2020, Algorithms 1 and 2 (Linf): vertical
stripes of +-epsilon to begin with, then squares of one sign a channel, kept if the margin falls. The side
shrinks with the share of the queries that is spent, by the schedule of the paper.

Deviations: the first squares cover a tenth of the picture (the paper has 0.05 for ImageNet, 0.8 for MNIST);
the margin is that of the disclosed probabilities. In a table a square is a random set of as many columns.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.run import Run, margin

FIRST_SHARE = 0.1
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: after each of these the share is halved."""
OF = 10_000


def square(run: Run, rng: np.random.Generator, others: F8) -> None:
    """Descends until the run is over."""
    del others
    reach = run.space.reach(run.within.radius)
    best = run.space.clip(run.start + reach * stripes(run, rng))
    least = _or_most(margin(run.ask(best), run.label))
    for _ in count():
        share = share_of(run.tally.queries / run.limits.queries)
        changed, sign = patch(run, rng, share)
        row = best.copy()
        row[changed] = run.start[changed] + reach[changed] * sign
        row = run.space.clip(row)
        now = margin(run.ask(row), run.label)
        if now < least:
            best, least = row, now


def share_of(spent: float) -> float:
    """The share of the picture that a square covers once a part (0 to 1) of the queries is spent."""
    return FIRST_SHARE / 2.0 ** sum(spent * OF > at for at in SCHEDULE)


def stripes(run: Run, rng: np.random.Generator) -> F8:
    """float64[d] of signs: one a column and channel of a picture, one a column of a table."""
    shape = run.space.picture
    if shape is None:
        return _signs(rng, run.space.size)
    channels, height, width = shape
    made = np.repeat(_signs(rng, channels * width).reshape(channels, 1, width), height, axis=1)
    return _ordered(run, made)


def patch(
    run: Run, rng: np.random.Generator, share: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], F8]:
    """bool[d], which values change, and the signs of these."""
    shape = run.space.picture
    if shape is None:
        n = max(1, round(share * run.space.size))
        changed = np.zeros(run.space.size, bool)
        changed[rng.choice(run.space.size, n, replace=False)] = True
        return changed, _signs(rng, n)
    channels, height, width = shape
    side = min(max(1, round(float(np.sqrt(share * height * width)))), height, width)
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    mask, signs = np.zeros(shape), np.zeros(shape)
    mask[:, top : top + side, left : left + side] = 1
    signs[:] = _signs(rng, channels)[:, None, None]
    changed = _ordered(run, mask) > 0
    return changed, _ordered(run, signs)[changed]


def _ordered(run: Run, picture: F8) -> F8:
    return (np.moveaxis(picture, 0, 2) if run.space.channels_last else picture).reshape(-1)


def _signs(rng: np.random.Generator, n: int) -> F8:
    return rng.choice([-1.0, 1.0], n)


def _or_most(value: float) -> float:
    return 1.0 + 1e-9 if np.isnan(value) else value
