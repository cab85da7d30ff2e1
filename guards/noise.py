"""Noise: the noise floor of an image, the mean roughness of its quietest pixels. Reads the input alone.

A gradient attack changes every pixel by about its whole allowance, flat regions included, where images like
those of calibration have no roughness: the floor rises by orders of magnitude while the image looks the
same. An attacker who knows this does not change quiet pixels, and must use a smaller or more visible
perturbation elsewhere. Does not detect changes that leave the quiet pixels as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from guards.arrays import read_only
from guards.detector import I8, as_input, check_fit_rows
from guards.rows import F8, Signals

QUIET_SHARE = 0.1
OFFSET = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Log noise floor relative to the value range. shape: int64[3], (c, h, w); span: that range."""

    kind: ClassVar[str] = "noise"
    needs_features: ClassVar[bool] = False

    shape: I8
    span: float

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Store the image shape and the value range; nothing else is fitted.

        Args:    s.x: float32[n, c, h, w], any range; y: int64[n], only counted; seed: unused.
        Raises:  ValueError for another rank, sides shorter than 4, or images that hold one value only.
        """
        x = as_input("noise", "a picture input", s.x)
        if x.ndim != 4 or min(x.shape[2:]) < 4:
            raise ValueError(f"noise: x has shape {list(x.shape)}, expected [n, c, h >= 4, w >= 4]")
        check_fit_rows("noise", x, y, 2)
        span = float(x.max() - x.min())
        if not span > 0:
            raise ValueError("noise: the pictures to fit on are all alike; give pictures that vary")
        return cls(read_only(np.array(x.shape[1:], np.int64)), span)

    def score(self, s: Signals, /) -> F8:
        """Log of the mean absolute 4-neighbour Laplacian over the quietest tenth of the interior pixels.

        Returns: float64[n], from log(1e-3) for a perfectly quiet tenth to about log(4) in the fitted range.
        Raises:  ValueError if x does not have the fitted shape.
        Cost:    O(c h w): about 25 us at n=1 of 28 x 28.
        Source:  after Immerkaer, CVIU 1996. Deviations: the 4-neighbour Laplacian instead of the paper's 3x3
                 mask; the quietest tenth instead of all pixels, so that texture does not count; relative to
                 the value range, offset by 1e-3, logarithm instead of the paper's scale factor.
        """
        given = as_input("noise", "a picture input", s.x)
        if given.shape[1:] != tuple(self.shape):
            raise ValueError(
                f"noise: x has shape {list(given.shape)}, expected {['n', *map(int, self.shape)]}"
            )
        x = given.astype(np.float64)
        middle = x[..., 1:-1, 1:-1]
        around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
        rough = np.abs(4 * middle - around).reshape(-1, math.prod(middle.shape[1:]))
        quiet = max(1, int(QUIET_SHARE * rough.shape[1]))
        floor = np.partition(rough, quiet - 1, axis=1)[:, :quiet].mean(1)
        score: F8 = np.log(floor / self.span + OFFSET)
        return score
