"""Squeezers: bit-depth reduction and a 2x2 median of an image, and the distance between two answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8

SQUEEZERS = 2


def reduce_bits(x: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Images at 2^bits levels per channel, of the same shape.

    Args:    x: values in [0, 1], not checked; bits: 1..7.
    Source:  Xu et al., NDSS 2018, section 3.2.
    """
    levels = np.float32(2**bits - 1)
    return np.asarray(np.round(x * levels) / levels, np.float32)


def median_2x2(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upper median of each pixel and its neighbours left, above and above left; edges replicated.

    Args:    x: float32[..., h, w].
    Source:  Xu et al., NDSS 2018, section 3.3; equal to scipy.ndimage.median_filter with size 2.
    """
    left = np.concatenate([x[..., :1], x[..., :-1]], -1)
    low, high = np.minimum(x, left), np.maximum(x, left)
    low_above = np.concatenate([low[..., :1, :], low[..., :-1, :]], -2)
    high_above = np.concatenate([high[..., :1, :], high[..., :-1, :]], -2)
    middle: NDArray[np.float32] = np.maximum(np.minimum(high, high_above), np.maximum(low, low_above))
    return middle


def variants(x: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """float32[2n, c, h, w]: every row at fewer bits, then every row after the median.

    Args:    x: float32[n, c, h, w], values in [0, 1]; bits: 1..7.
    Raises:  ValueError for another rank.
    """
    if x.ndim != 4:
        raise ValueError(
            f"squeeze: x has shape {list(x.shape)}, expected pictures [n, c, h, w]; leave it out here"
        )
    return np.concatenate([reduce_bits(x, bits), median_2x2(x)])


def answer_change(p: NDArray[Any], squeezed: NDArray[Any]) -> F8:
    """The larger of the L1 distances between an answer and those to its squeezed variants.

    Args:    p: float[n, k]; squeezed: float[2n, k], the answers to `variants` in its order.
    Returns: float64[n] in [0, 2].
    Raises:  ValueError if the shapes do not match.
    """
    if p.ndim != 2 or squeezed.shape != (SQUEEZERS * len(p), p.shape[1]):
        raise ValueError(
            f"squeeze: {list(squeezed.shape)} answers to the variants of {list(p.shape)}; expected two a row"
        )
    apart = squeezed.astype(np.float64).reshape(SQUEEZERS, *p.shape) - p.astype(np.float64)
    return np.asarray(np.abs(apart).sum(2).max(0), np.float64)
