"""Noise: is there a disturbance where the picture should be quiet? Needs no model.

A gradient attack moves every pixel by about its whole allowance, the quiet ones too, and there a picture of
the training data has nothing: so the noise floor, the mean roughness of the quietest tenth of the pixels,
rises by orders of magnitude while the picture still looks the same. An attacker who knows this leaves the
quiet pixels alone, at the price of a smaller or a more visible disturbance elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import frozen
from guards.detector import I8, labelled
from guards.rows import F8, Signals

QUIET = 0.1
LEAST = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """The noise floor of a picture, in logarithms of its value range."""

    kind: ClassVar[str] = "noise"
    needs_features: ClassVar[bool] = False

    shape: I8
    span: float

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Learn the value range; nothing else of the data, and nothing of chance.

        Args:    s.x: float32[n, c, h, w], any range.
        Raises:  ValueError for another rank, sides shorter than 4, or pictures that are all one value.
        """
        if s.x.ndim != 4 or min(s.x.shape[2:]) < 4:
            raise ValueError(f"noise: x has shape {list(s.x.shape)}, expected [n, c, h >= 4, w >= 4]")
        labelled("noise", s.x, y, 2)
        span = float(s.x.max() - s.x.min())
        if not span > 0:
            raise ValueError("noise: the pictures to fit on are all alike; give pictures that vary")
        return cls(frozen(np.array(s.x.shape[1:], np.int64)), span)

    def score(self, s: Signals, /) -> F8:
        """log of the mean absolute Laplacian over the quietest tenth of the pixels.

        Returns: float64[n], from log(1e-3) for perfectly quiet to about log(8).
        Raises:  ValueError if x does not have the fitted shape.
        Cost:    O(c h w): about 25 us at n=1 of 28 x 28.
        Source:  the second-derivative noise estimate of Immerkaer, CVIU 1996. Deviation: over the quietest
                 pixels alone, so that texture does not count.
        """
        if s.x.shape[1:] != tuple(self.shape):
            raise ValueError(f"noise: x has shape {list(s.x.shape)}, expected {['n', *map(int, self.shape)]}")
        x = s.x.astype(np.float64)
        middle = x[..., 1:-1, 1:-1]
        around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
        rough = np.abs(4 * middle - around).reshape(-1, math.prod(middle.shape[1:]))
        quiet = max(1, int(QUIET * rough.shape[1]))
        floor = np.partition(rough, quiet - 1, axis=1)[:, :quiet].mean(1)
        score: F8 = np.log(floor / self.span + LEAST)
        return score
