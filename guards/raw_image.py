"""RawImage: coarse statistics of an image against those of the calibration data. Reads the input alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.atoms import varying
from guards.detector import I8, as_input, check_fit_rows
from guards.rarity import Tail, blend
from guards.rows import F8, Signals

CELLS = 8
EXPLAINED_VARIANCE = 0.95
MIN_ROWS = 80
TAIL_FLOORS = (0.0, 0.01, 0.05)


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """A Gaussian over the image pooled to 8 x 8: principal directions, and one variance for the rest.

    down: float64[<= 8, h] and across: float64[w, <= 8], the pooling; mu: float64[p], the mean; basis:
    float64[r, p], principal directions, scaled; variance: the mean variance of the other directions.
    """

    down: F8
    across: F8
    mu: F8
    basis: F8
    variance: float

    @classmethod
    def fit(cls, x: F8) -> Self:
        """Fit on float64[n, c, h, w]. Raises ValueError if the images do not vary."""
        down, across = _pooling_matrix(x.shape[2]), _pooling_matrix(x.shape[3]).T
        cells = _pool(x, down, across)
        if not varying(cells).any():
            raise ValueError("raw_image: the pictures to fit on are all alike; give pictures that vary")
        mu = cells.mean(0)
        variance, directions = np.linalg.eigh(np.cov((cells - mu).T).reshape(len(mu), -1))
        variance, directions = np.maximum(variance[::-1], 0), directions[:, ::-1]
        r = min(
            int(np.searchsorted(np.cumsum(variance) / variance.sum(), EXPLAINED_VARIANCE)) + 1, len(mu) - 1
        )
        rest = max(float(variance[r:].mean()), 1e-4 * float(variance.mean()))
        shrink = np.sqrt(np.maximum(1 - rest / variance[:r], 0))
        return cls(
            read_only(down), read_only(across), read_only(mu), read_only((directions[:, :r] * shrink).T), rest
        )

    def distance(self, x: F8) -> F8:
        """The squared Mahalanobis distance, residual included, by one projection: float64[n]."""
        cells = _pool(x, self.down, self.across) - self.mu
        inside = cells @ self.basis.T
        squared: F8 = (np.vecdot(cells, cells) - np.vecdot(inside, inside)) / self.variance
        return squared


@dataclass(frozen=True, slots=True, eq=False)
class RawImage:
    """Three sub-scores of an image, each as a rarity, blended.

    The pooled image's Mahalanobis distance, the share of black and white pixels, and the high-frequency share
    of its energy. The last two are two-sided: too little is as suspicious as too much. Does not detect
    changes that keep all three, such as a shift by one pixel, slightly more light, or another content.

    shape: int64[3], (c, h, w); low, high: the value range; centre: float64[2], medians; tails: of the three.
    """

    kind: ClassVar[str] = "raw_image"
    needs_features: ClassVar[bool] = False

    shape: I8
    pooled: Pooled
    low: float
    high: float
    centre: F8
    tails: tuple[Tail, ...]

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Gaussian and medians on one half of the rows, the sub-scores' tails on the other.

        Args:    s.x: float32[n, c, h, w], any range (black and white are the least and greatest value seen);
                 y: int64[n], only counted; seed: of the permutation that makes the halves.
        Raises:  ValueError for another rank, fewer than 80 rows, or sides shorter than 2.
        """
        given = as_input("raw_image", "a picture input", s.x)
        if given.ndim != 4 or min(given.shape[2:]) < 2:
            raise ValueError(f"raw_image: x has shape {list(given.shape)}, expected [n, c, h >= 2, w >= 2]")
        check_fit_rows("raw_image", given, y, MIN_ROWS)
        order = np.random.default_rng(seed).permutation(len(y))
        x = given.astype(np.float64)
        first, second = x[order[::2]], x[order[1::2]]
        pooled, low, high = Pooled.fit(first), float(x.min()), float(x.max())
        centre = np.median(_statistics(first, low, high), 1)
        scores = [pooled.distance(second), *_deviations(second, low, high, centre)]
        tails = tuple(Tail.fit(score, floor=floor) for score, floor in zip(scores, TAIL_FLOORS, strict=True))
        return cls(read_only(np.array(x.shape[1:], np.int64)), pooled, low, high, read_only(centre), tails)

    def score(self, s: Signals, /) -> F8:
        """The blended rarity of the image.

        Returns: float64[n] nats in [0, inf).
        Raises:  ValueError if x does not have the fitted shape.
        Cost:    O(n c h w): about 65 us at n=1 of 28 x 28.
        Source:  docs/guards.md, raw image; for the Gaussian Tipping and Bishop, JRSS B 61 (1999).
        """
        given = as_input("raw_image", "a picture input", s.x)
        if given.shape[1:] != tuple(self.shape):
            expected = ["n", *map(int, self.shape)]
            raise ValueError(
                f"raw_image: x has shape {list(given.shape)}, expected {expected}; fit it on this model"
            )
        x = given.astype(np.float64)
        return blend(self.tails, [self.pooled.distance(x), *_deviations(x, self.low, self.high, self.centre)])


def _deviations(x: F8, low: float, high: float, centre: F8) -> tuple[F8, F8]:
    """float64[n] each: the absolute deviation of each statistic from its median."""
    extreme, fine = _statistics(x, low, high)
    return np.abs(extreme - centre[0]), np.abs(fine - centre[1])


def _statistics(x: F8, low: float, high: float) -> tuple[F8, F8]:
    """float64[n] each: share of black and white pixels, log ratio of high-frequency to total energy."""
    span = max(high - low, 1e-12)
    edge, flat = span / 512, _flat(x)
    right = _flat(x[..., 1:] - x[..., :-1])
    below = _flat(x[..., 1:, :] - x[..., :-1, :])
    fine = np.vecdot(right, right) / right.shape[1] + np.vecdot(below, below) / below.shape[1]
    whole = np.vecdot(flat, flat) / flat.shape[1] - np.square(flat.mean(1))
    least = 1e-4 * span**2
    extreme: F8 = ((flat <= low + edge) | (flat >= high - edge)).mean(1)
    return extreme, np.log((fine + least) / (np.maximum(whole, 0.0) + least))


def _flat(x: F8) -> F8:
    """float64[n, product of the other axes]; also for n = 0."""
    return x.reshape(-1, math.prod(x.shape[1:]))


def _pooling_matrix(size: int) -> F8:
    """float64[min(8, size), size]: row i averages part i of the side; parts may overlap by a pixel."""
    cells = min(CELLS, size)
    at = np.arange(size)[None]
    i = np.arange(cells)[:, None]
    inside = (at >= i * size // cells) & (at < -(-(i + 1) * size // cells))
    return np.asarray(inside / inside.sum(1, keepdims=True), np.float64)


def _pool(x: NDArray[Any], down: F8, across: F8) -> F8:
    """float64[n, c * 64]: one matrix product over all rows for the width, then one for the height."""
    _, c, h, w = x.shape
    narrow = (x.reshape(-1, w) @ across).reshape(-1, c, h, across.shape[1])
    return _flat(np.matmul(down, narrow))
