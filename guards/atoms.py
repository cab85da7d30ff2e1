"""Atoms: values that a share of all rows has, and cuts that lie between them.

On coarse or repeated rows scores repeat, so a value can hold a share of all rows. The same row gets a score
that differs in its last digits with the size of its batch and with the implementation (float32 models,
onnxruntime against numpy). A cut at such a value, or one float above it, would then stop all of these rows or
none by chance. So scores closer than a tolerance count as equal, one atom, and cuts and knots are chosen
between atoms. The tolerance is a hundred times the noise or more, so noise moves what is interpolated
between two atoms by at most a hundredth of the step between them. Grounds: docs/guards.md, section 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8, Signals

STEP = 5.0
REACH = 4.0
FLOAT32_NOISE = 1e-6
NOISE_QUANTILE = 0.99
TIMES_NOISE = 30.0


@dataclass(frozen=True, slots=True)
class Resolution:
    """Scores at s that differ by at most max(absolute, relative |s|) are one atom."""

    absolute: float
    relative: float

    def tolerance(self, score: float) -> float:
        """The least difference that counts at this score, >= 0, in its unit."""
        return max(self.absolute, self.relative * abs(score))


NATS = Resolution(2e-3, 2e-4)
"""Risks, >= 0. On coarse tables noise comes to 4e-3 nats, and cuts have 1e-2 nats of room; where risks do not
repeat noise comes to 1e-6 nats, and a cut 1e-3 nats higher stops 0.1 % fewer rows."""

SUSPICIONS = Resolution(5e-7, 2e-5)
"""One minus a float32 probability: rounding by 6e-8, and of the logits by 1e-6, relative to the suspicion."""

SCORES = Resolution(1e-5, 1e-5)
"""Scores of a unit near one: distances of unit vectors or standardised rows, and rarities."""


def cut_above(ranked: F8, at: int, resolution: Resolution) -> float:
    """The cut just above the atom that holds `ranked[at]`.

    It lies halfway to the next larger atom, but at most five tolerances above its own, or half a tolerance if
    that is a single row, so that few rows score between: scores that do not repeat need no more room, and
    where scores repeat there are hardly any rows between atoms. Where scores lie so dense that no gap within
    four tolerances is wider than the tolerance, it lies in the widest gap there: few rows are then near the
    cut, whatever the noise.

    Args:    ranked: float64[n], ascending, finite; at: 0 .. n - 1; resolution: of the scores.
    Returns: a number > ranked[at].
    Cost:    O(log n + rows within four tolerances).
    """
    score = float(ranked[at])
    tolerance = resolution.tolerance(score)
    end = int(np.searchsorted(ranked, score + REACH * tolerance, "right"))
    near = np.append(ranked[at : end + 1], np.inf) if end == len(ranked) else ranked[at : end + 1]
    gaps = np.diff(near)
    wide = np.flatnonzero(gaps > tolerance)
    i = int(wide[0]) if len(wide) else int(gaps.argmax())
    top = float(near[i])
    repeats = i > 0 or (at > 0 and score - float(ranked[at - 1]) <= tolerance)
    step = STEP * tolerance if repeats else tolerance / 2
    return max(top + min(float(gaps[i]) / 2, step), math.nextafter(top, math.inf))


def atom_starts(ranked: F8, resolution: Resolution) -> NDArray[np.int64]:
    """The index of the least score of each atom: int64[m], ascending, the first one 0.

    An atom holds the scores within the tolerance of its least one, so it never grows by chaining.

    Args:    ranked: float64[n >= 1], ascending, finite; resolution: of the scores.
    Cost:    O(m log n).
    """
    starts = [0]
    while True:
        least = float(ranked[starts[-1]])
        following = int(np.searchsorted(ranked, least + resolution.tolerance(least), "right"))
        if following == len(ranked):
            return np.array(starts, np.int64)
        starts.append(following)


def shaken(s: Signals, seed: int) -> Signals:
    """The same rows with relative noise of FLOAT32_NOISE on the model's answers and on pictures.

    Pictures were decoded and scaled by some float arithmetic; the values of a table row are exact.
    """
    rng = np.random.default_rng(seed)

    def shake(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(array * (1 + FLOAT32_NOISE * rng.uniform(-1, 1, array.shape)), np.float32)

    x, h, z = (None if one is None else shake(one) for one in (s.x, s.h, s.z))
    return Signals(x, t=s.t, h=h, z=z)


def measured(scores: F8, shaken: F8) -> Resolution:
    """The resolution of a score of any unit, from its change when its inputs are `shaken`.

    That is ten times float32 noise, and the tolerance thirty times the change that 99 % of the rows keep
    within: three hundred times the noise of one rounding. A score that does not change gets SCORES.

    Args:    scores, shaken: float64[n], finite, of the same rows.
    """
    change = TIMES_NOISE * float(np.quantile(np.abs(shaken - scores), NOISE_QUANTILE))
    return Resolution(change, 0.0) if change > 0 else SCORES


def varying(x: F8) -> NDArray[np.bool_]:
    """bool[d]: the columns of float64[n, d] that vary by more than a millionth of their largest value."""
    return np.asarray(np.ptp(x, axis=0) > FLOAT32_NOISE * np.abs(x).max(0), np.bool_)
