"""An attacker who uses refusals and changes of the answer as an oracle of the defence, and adapts to it.

Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash: Stateful defenses for machine learning models are not yet secure
against black-box attacks, CCS 2023 (OARS). As there, on HopSkipJump: the noise of the probes is widened until
few of them are noticed, probes that are noticed are drawn again, and steps and the bisection take as large
strides as are answered ("adapt and resample").

It also keeps rows on the lattice of the samples (whole numbers, 8-bit pixels), since a guard may look for
values that no real row has.

Deviations: OARS finds the least width by bisection before each estimate; here it doubles while a pilot of
`PILOT` probes is noticed, halves where that made it worse or cannot go on (a guard may look for noise as
well as for near-duplicates), and goes back slowly while none is. A query counts as noticed if it is not
served, which includes a row that a fallback answered. A pilot whose answers are all alike widens the noise
too, since a guard may answer a near-duplicate with what it answered before, which tells nothing of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import SERVED, Answer
from gateway.redteam.attacks.hopskipjump import between, direction_of, directions, first_radius
from gateway.redteam.attacks.starts import first_wrong
from gateway.redteam.run import Run

PILOT, WIDER, BACK = 8, 2.0, 1.1
MOST_NOTICED = 0.5
RESAMPLES, PROBES, STEPS = 2, 50, 12
LEAST_GAP, MOST_GAP = 1e-3, 0.2


@dataclass(slots=True)
class Tuning:
    """What the attacker has learned of the defence.

    width: of the probes, as a multiple of HopSkipJump's; gap: how finely the boundary is bisected, as a
    part of the way; stride: of the steps, as a multiple of HopSkipJump's; factor: by which the width
    changes where a pilot is noticed, turned round where that made it worse; noticed: the share of the last
    pilot.
    """

    width: float = 1.0
    gap: float = LEAST_GAP
    stride: float = 1.0
    factor: float = WIDER
    noticed: float = 0.0

    def adapt(self, share: float, alike: bool, most: float) -> None:
        """After a pilot: the share of it that was noticed, whether its answers were alike, the most width."""
        if share > MOST_NOTICED:
            worse = share > self.noticed > MOST_NOTICED
            if worse or (self.factor > 1 and self.width * self.factor > most) or self.width < 1 / most:
                self.factor = 1 / self.factor
            self.width *= self.factor
        elif alike:
            self.width *= WIDER
        elif share == 0:
            self.width *= BACK if self.width < 1 else 1 / BACK
        self.width = float(np.clip(self.width, 1 / most, most))
        self.noticed = share


def adaptive(run: Run, rng: np.random.Generator, others: F8) -> None:
    """Moves until the run is over; returns where no row of another class is found."""
    found = first_wrong(run, rng, others)
    if found is None:
        return
    tuning = Tuning()
    near = bisect(run, found, tuning, rng)
    for t in count(1):
        away = run.distance(near)
        radius = first_radius(run) if t == 1 else away / run.space.size
        direction = estimate(run, near, radius, int(PROBES * np.sqrt(t)), tuning, rng)
        near = bisect(run, step(run, near, direction, away / np.sqrt(t), tuning, rng), tuning, rng)


def noticed(answer: Answer) -> bool:
    """Whether the defence has shown itself: the row was not served by the primary."""
    return answer.outcome != SERVED


def estimate(run: Run, near: F8, radius: float, n: int, tuning: Tuning, rng: np.random.Generator) -> F8:
    """The direction of more wrong answers, from about n probes in pilots that adapt the width.

    The widest probe goes as far from the row as the row is from the start.
    """
    moved: list[F8] = []
    wrong: list[float] = []
    most = max(2.0, run.distance(near) / radius)
    for _ in range(2 * max(1, n // PILOT)):
        reach = radius * tuning.width
        pilot = _pilot(run, near, reach, tuning, rng)
        known = [(row, one) for row, one in pilot if one.label is not None]
        moved += [(row - near) / reach for row, _ in known]
        told = [1.0 if run.is_wrong(one) else -1.0 for _, one in known]
        wrong += told
        tuning.adapt(sum(noticed(one) for _, one in pilot) / len(pilot), len(set(told)) == 1, most)
        if len(wrong) >= n:
            break
    return direction_of(run, np.array(moved).reshape(-1, run.space.size), np.array(wrong))


def _pilot(
    run: Run, near: F8, reach: float, tuning: Tuning, rng: np.random.Generator
) -> list[tuple[F8, Answer]]:
    """Probes with their answers. One without an answer is drawn again, unless the last pilot was noticed; the
    pilot ends early where nothing is answered."""
    found: list[tuple[F8, Answer]] = []
    draws = 1 if tuning.noticed > MOST_NOTICED else RESAMPLES
    for _ in range(PILOT):
        for _ in range(draws):
            row = run.space.clip(near + reach * directions(run, rng, 1)[0])
            answer = run.ask(row)
            if answer.label is not None:
                break
        found.append((row, answer))
        if len(found) == PILOT // 2 and all(one.label is None for _, one in found):
            break
    return found


def step(run: Run, near: F8, direction: F8, length: float, tuning: Tuning, rng: np.random.Generator) -> F8:
    """A step to a row of another class: halved where the class is the row's own, drawn anew where noticed."""
    part = 1.0
    for _ in range(STEPS):
        row = run.space.clip(near + part * tuning.stride * length * direction)
        answer = run.ask(row)
        if run.is_wrong(answer):
            return row
        if answer.label is None:
            tuning.stride = float(np.clip(tuning.stride * rng.choice([0.7, 1.5]), 0.1, 10.0))
        else:
            part /= 2
    return near


def bisect(run: Run, far: F8, tuning: Tuning, rng: np.random.Generator) -> F8:
    """The nearest row of another class, as finely as the defence answers."""
    low, high, silent = 0.0, 1.0, 0
    while high - low > tuning.gap and silent <= RESAMPLES:
        part = low + (high - low) * (0.5 if not silent else float(rng.uniform(0.2, 0.8)))
        answer = run.ask(between(run, far, part))
        if answer.label is None:
            silent += 1
        elif run.is_wrong(answer):
            high, silent = part, 0
        else:
            low, silent = part, 0
    grown = tuning.gap * WIDER if silent else tuning.gap / BACK
    tuning.gap = float(np.clip(grown, LEAST_GAP, MOST_GAP))
    return between(run, far, high)
