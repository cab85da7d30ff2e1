"""What both ends of the protocol do with the numbers of a tensor."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray


def flat(data: object, shape: tuple[int, ...]) -> list[Any] | None:
    """The values of a flat or fully nested list, or None if their number is not the shape's."""
    if not isinstance(data, list):
        return None
    if len(data) == math.prod(shape) and not any(isinstance(value, list) for value in data[:1]):
        return data
    level = [data]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in level):
            return None
        level = list(chain.from_iterable(level))
    return level


def bf16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 as the bits of BF16, to nearest even, same shape; what is no number as the quiet NaN."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), np.uint64(0x7FC0), rounded).astype("<u2")
