"""How fast something grows: a line through samples that depend on each other, and how sure its slope is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.core.rows import F8

BLOCKS, LEAST = 20, 5
Z = 1.959964


@dataclass(frozen=True, slots=True)
class Slope:
    """Least squares, with its 95 % interval."""

    value: float
    low: float
    high: float


def slope(x: F8, y: F8) -> Slope:
    """The slope of y over x, ascending.

    Neighbouring samples are alike, so the line is drawn through the means of at most twenty blocks of them,
    which hardly depend on each other. Raises ValueError for fewer than five samples.
    """
    if len(x) < LEAST:
        raise ValueError(f"{len(x)} samples: at least {LEAST} make a slope with an interval")
    blocks = min(BLOCKS, len(x))
    at, mean = (np.array([part.mean() for part in np.array_split(one, blocks)]) for one in (x, y))
    apart = at - at.mean()
    value = float(apart @ mean / (apart @ apart))
    left = mean - mean.mean() - value * apart
    half = _student(blocks - 2) * float(np.sqrt(left @ left / (blocks - 2) / (apart @ apart)))
    return Slope(value, value - half, value + half)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to one in a thousand from ten degrees on, to 4 % at three.

    Source:  Abramowitz and Stegun, 26.7.5.
    """
    second = (Z**3 + Z) / 4
    third = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    return Z + second / degrees + third / degrees**2
