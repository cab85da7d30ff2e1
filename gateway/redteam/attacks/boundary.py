"""The Boundary attack: decision-based, a random walk along the boundary towards the row.

Brendel, Rauber, Bethge: Decision-based adversarial attacks, ICLR 2018. L2 alone. Steps as in the authors'
code (Foolbox): orthogonal step 0.01 of the distance, step towards the row 0.01, each adapted by 1.5 to the
share of its last trials that stayed wrong (a half, and a quarter).

Deviations: it begins with a real row of another class, drawn to the boundary by bisection; the orthogonal
step is checked alone at one trial in five, which is also when both steps are adapted.
"""

from __future__ import annotations

from collections import deque
from itertools import count

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.attacks.hopskipjump import to_boundary
from gateway.redteam.attacks.starts import first_wrong
from gateway.redteam.run import Run

STEP, ADAPT, CHECK, PRECISION = 0.01, 1.5, 5, 1e-3
ORTHOGONAL_TRIALS, TOWARDS_TRIALS = 30, 20
LEAST_STEP = 1e-7


def boundary(run: Run, rng: np.random.Generator, others: F8) -> None:
    """Walks until the run is over; returns where no row of another class is found or steps vanish."""
    found = first_wrong(run, rng, others)
    if found is None:
        return
    near = to_boundary(run, found, PRECISION)
    orthogonal, towards = STEP, STEP
    on_sphere, nearer = deque[bool](maxlen=ORTHOGONAL_TRIALS), deque[bool](maxlen=TOWARDS_TRIALS)
    for t in count():
        check = t % CHECK == 0
        sphere, row = candidates(run, near, orthogonal, towards, rng)
        if check:
            on_sphere.append(run.wrong(sphere))
            if not on_sphere[-1]:
                orthogonal = _adapted(orthogonal, on_sphere, 0.5)
                continue
        wrong = run.wrong(row)
        if wrong:
            near = row
        if check:
            nearer.append(wrong)
            orthogonal = _adapted(orthogonal, on_sphere, 0.5)
            towards = _adapted(towards, nearer, 0.25)
        if max(orthogonal, towards) < LEAST_STEP:
            return


def candidates(
    run: Run, near: F8, orthogonal: float, towards: float, rng: np.random.Generator
) -> tuple[F8, F8]:
    """A row at the same distance from the start, and that row a little nearer to it."""
    away = run.start - near
    distance = float(np.linalg.norm(away))
    unit = away / distance
    noise = rng.standard_normal(run.space.size)
    noise -= (noise @ unit) * unit
    noise *= orthogonal * distance / float(np.linalg.norm(noise))
    sphere = run.start - (away - noise) / np.sqrt(1 + orthogonal**2)
    sphere = run.space.clip(sphere)
    back = run.start - sphere
    length = float(np.linalg.norm(back))
    step = max(0.0, towards * distance + length - distance)
    return sphere, run.space.clip(sphere + step * back / length)


def _adapted(step: float, trials: deque[bool], wanted: float) -> float:
    """A longer step if more trials than wanted stayed wrong, a shorter one if fewer; needs full trials."""
    if len(trials) < (trials.maxlen or 0):
        return step
    share = sum(trials) / len(trials)
    trials.clear()
    return step * ADAPT if share > wanted else step / ADAPT if share < wanted else step
