"""Coarse: what is left of a row when detail is dropped, as whole numbers: levels, and principal components.

All products are of whole numbers small enough for float32 to hold every partial sum exactly. So the same row
gives the same numbers in a batch of one and of a thousand, on every machine and with any number of threads: a
repeated row is at distance 0 of itself.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.rows import F8

F4: TypeAlias = NDArray[np.float32]

LEVELS: Final = 255
COMPONENTS: Final = 48
MOST_COMPONENT: Final = 2047
MOST_VALUES: Final = 4096
PICTURE_SIDE, POOLED_SIDE = 32, 14
LEVELS_A_DEVIATION: Final = 16
MIDDLE_LEVEL: Final = 128
TEXT_WIDTH: Final = 8
MIN_ROWS: Final = 8
NARROW: Final = 64
EXACT: Final = 2.0**24
LEAST_VARIANCE: Final = 1e-6
REACH: Final = 5.0
"""Deviations of the largest component that fit into MOST_COMPONENT."""
_SIGNS: Final = read_only(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Coarse:
    """Fitted on calibration rows; without secrets, so that it may be stored.

    shape: int64[1 or 3], of a row without its texts; texts: how many a row has. low, gain: float32, broadcast
    to a row, (x - low) * gain is its level in [0, 255]. down: float32[<= 32, h], across: float32[w, <= 32],
    with a 1 where a pixel belongs to a cell, and cell: float32[<= 32, <= 32], one over the pixels of each;
    all three empty for tables and small pictures. axes: float32[d, k <= 48], whole. centre: float32[k], of
    the calibration rows. step: float32, by which components are divided. length: the root mean square of
    their length.
    """

    shape: NDArray[np.int64]
    texts: int
    low: F4
    gain: F4
    down: F4
    across: F4
    cell: F4
    axes: F4
    centre: F4
    step: float
    length: float

    @classmethod
    def fit(cls, x: F4, texts: NDArray[Any] | None = None) -> Self:
        """Scale, and the half-whitened principal components of the levels.

        Args:    x: float32[n, d] with d <= 4,096, or pictures float32[n, c, h, w] or [n, h, w, c]; texts:
                 [n, t] of str or bytes beside a table, or None.
        Raises:  ValueError for another shape, fewer than 8 rows, values that are not finite, or rows that
                 are all alike.
        Source:  docs/guards.md, near-duplicates.
        """
        if x.ndim not in (2, 4) or (not math.prod(x.shape[1:]) and texts is None):
            raise ValueError(
                f"coarse: x has shape {list(x.shape)}, expected a table [n, d] or pictures of 4 axes"
            )
        if len(x) < MIN_ROWS or not np.isfinite(x).all():
            raise ValueError(f"coarse: needs {MIN_ROWS} finite rows or more, not {len(x)}; mend the file")
        low, gain = _scale(x)
        down, across, cell = _shrinking(x.shape[1:])
        width = 0 if texts is None else texts.shape[1]
        shape = np.array(x.shape[1:], np.int64)
        empty = np.zeros((0, 0), np.float32)
        raw = cls(shape, width, low, gain, down, across, cell, empty, np.zeros(0, np.float32), 1.0, 1.0)
        axes, centre, step, length = _axes(raw.levels(x, texts), _pooling(raw))
        low, gain, down, across, cell, axes, centre = map(
            read_only, (low, gain, down, across, cell, axes, centre)
        )
        return cls(read_only(shape), width, low, gain, down, across, cell, axes, centre, step, length)

    def levels(self, x: F4, texts: NDArray[Any] | None = None) -> F4:
        """Whole levels of each value, of large pictures of each cell, then eight of each text.

        A value beyond the ends has the level of that end; NaN counts as the lower one.

        Args:    x, texts: as in `fit`.
        Returns: float32[n, d], whole numbers in [0, 255].
        Raises:  ValueError for another shape than in fit.
        Cost:    O(values): 5 us at n=1 of 28 x 28, 1 us a row at n=32.
        """
        self._check(x, texts)
        levels = np.subtract(x, self.low, dtype=np.float32)
        levels *= self.gain
        np.fmax(levels, 0, out=levels)
        np.fmin(levels, LEVELS, out=levels)
        np.rint(levels, out=levels)
        if self.cell.size:
            levels = self._shrunk(levels)
        flat = levels.reshape(len(x), math.prod(levels.shape[1:]))
        return flat if texts is None else np.concatenate([flat, _text_levels(texts)], axis=1)

    def components(self, levels: F4) -> F4:
        """The half-whitened components: float32[n, k], whole numbers in [-2047, 2047].

        Args:    levels: float32[n, d], from `levels`.
        Cost:    O(n d k): 8 us at n=1 of 28 x 28, 1 us a row at n=32.
        """
        found = levels @ self.axes
        found -= self.centre
        found *= np.float32(self.step)
        np.rint(found, out=found)
        np.maximum(found, -MOST_COMPONENT, out=found)
        np.minimum(found, MOST_COMPONENT, out=found)
        return found

    @property
    def is_narrow_table(self) -> bool:
        """Whether a row is a table row of at most 64 levels."""
        return len(self.shape) == 1 and len(self.axes) <= NARROW

    def points(self, levels: F4) -> F4:
        """What the bits of rows are made of: the levels of a narrow table, components of all others."""
        return levels if self.is_narrow_table else self.components(levels)

    def _check(self, x: F4, texts: NDArray[Any] | None) -> None:
        if x.shape[1:] != tuple(self.shape.tolist()):
            expected = ["n", *self.shape.tolist()]
            raise ValueError(
                f"coarse: x has shape {list(x.shape)}, expected {expected}; fit it on this model"
            )
        given = (len(x), 0) if texts is None else texts.shape
        if given != (len(x), self.texts):
            raise ValueError(f"coarse: texts {list(given)}, expected [{len(x)}, {self.texts}]; one row each")

    def _shrunk(self, levels: F4) -> F4:
        """The mean level of each cell. Sums of at most 65,536 pixels are exact."""
        last = _is_channels_last(levels.shape[1:])
        planes = np.moveaxis(levels, 3, 1) if last else levels
        cells = np.matmul(self.down, np.matmul(planes, self.across))
        cells *= self.cell
        np.rint(cells, out=cells)
        return np.ascontiguousarray(np.moveaxis(cells, 1, 3)) if last else cells


def _scale(x: F4) -> tuple[F4, F4]:
    """low and gain: of pictures one for all values, from the least and greatest; of tables one a column."""
    if x.ndim == 4:
        low, high = float(x.min()), float(x.max())
        return np.array(low, np.float32), np.array(LEVELS / max(high - low, 1e-12), np.float32)
    wide = x.astype(np.float64)
    mean, spread = wide.mean(0), wide.std(0)
    gain = LEVELS_A_DEVIATION / np.where(spread > 0, spread, np.maximum(1.0, np.abs(mean)))
    return (mean - MIDDLE_LEVEL / gain).astype(np.float32), gain.astype(np.float32)


def _is_channels_last(shape: Sequence[int]) -> bool:
    """Whether a row is [h, w, c]: at most four channels at the end, and more in front."""
    return shape[2] <= 4 < shape[0]


def _shrinking(shape: tuple[int, ...]) -> tuple[F4, F4, F4]:
    """down, across and cell for pictures beyond 32 x 32 or 4,096 values; three empty ones for others."""
    empty = np.zeros((0, 0), np.float32)
    if len(shape) == 1:
        return empty, empty, empty
    h, w, c = shape if _is_channels_last(shape) else (shape[1], shape[2], shape[0])
    side = max(1, min(PICTURE_SIDE, math.isqrt(MOST_VALUES // min(c, MOST_VALUES))))
    if max(h, w) <= side:
        return empty, empty, empty
    down, across = _members(h, side), _members(w, side).T
    pixels = down.sum(1)[:, None] * across.sum(0)[None]
    return down, np.ascontiguousarray(across), (1 / pixels).astype(np.float32)


def _members(size: int, most: int) -> F4:
    """float32[min(most, size), size]: a 1 where a pixel belongs to a part; parts differ by one pixel."""
    cells = min(most, size)
    return np.asarray(np.arange(size) * cells // size == np.arange(cells)[:, None], np.float32)


def _pooling(raw: Coarse) -> F8:
    """float64[d, p]: from levels to what the components are of, pictures averaged to at most 14 x 14."""
    shape = tuple(raw.shape.tolist())
    if len(shape) == 1:
        return np.eye(shape[0] + TEXT_WIDTH * raw.texts)
    last = _is_channels_last(shape)
    h, w, c = shape if last else (shape[1], shape[2], shape[0])
    if raw.cell.size:
        h, w = raw.cell.shape
    down, across = (_members(size, POOLED_SIDE).astype(np.float64) for size in (h, w))
    spread = np.kron(down / down.sum(1, keepdims=True), across / across.sum(1, keepdims=True)).T
    channels = np.eye(c)
    return np.asarray(np.kron(spread, channels) if last else np.kron(channels, spread), np.float64)


def _axes(levels: F4, pooling: F8) -> tuple[F4, F4, float, float]:
    """Whole axes, the mean's components, and step and length of the components.

    Axis i is the i-th principal direction over the fourth root of its variance. One factor makes all whole:
    the largest for which 255 times the absolute sum of no axis passes 2^24.
    """
    if levels.shape[1] > MOST_VALUES:
        raise ValueError(f"coarse: {levels.shape[1]} values a row, at most {MOST_VALUES}; sum them up first")
    pooled = levels.astype(np.float64) @ pooling
    variance, directions = np.linalg.eigh(np.cov(pooled.T).reshape(pooled.shape[1], -1))
    kept = np.argsort(variance)[::-1][:COMPONENTS]
    kept = kept[variance[kept] > LEAST_VARIANCE * max(float(variance.max()), 1e-12)]
    if float(variance.max()) < 1e-12:
        raise ValueError("coarse: the rows to fit on are all alike; give rows that vary")
    axes = pooling @ (directions[:, kept] * variance[kept] ** -0.25)
    room = EXACT / LEVELS - levels.shape[1]
    axes = np.rint(axes * (room / np.abs(axes).sum(0).max()))
    found = levels.astype(np.float64) @ axes
    centre = np.rint(found.mean(0))
    deviation = max(float((found - centre).std(0).max()), 1e-12)
    step = float(np.float32(min(1.0, MOST_COMPONENT / (REACH * deviation))))
    length = float(np.sqrt(np.square((found - centre) * step).sum(1).mean()))
    return axes.astype(np.float32), centre.astype(np.float32), step, min(length, float(MOST_COMPONENT))


def _text_levels(texts: NDArray[Any]) -> F4:
    """float32[n, 8 t]: for each text eight levels, half a deviation above or below the middle by its hash.

    Two different texts differ in four of them on average, which is as far as two deviations of a number.
    """
    flat = texts.reshape(-1).tolist()
    hashes = [zlib.crc32(text.encode() if isinstance(text, str) else text) >> 24 for text in flat]
    signs = _SIGNS.take(np.array(hashes, np.int64), axis=0).reshape(len(texts), TEXT_WIDTH * texts.shape[1])
    return MIDDLE_LEVEL + (signs - np.float32(0.5)) * np.float32(LEVELS_A_DEVIATION)
