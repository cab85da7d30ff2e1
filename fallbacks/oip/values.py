"""Tensor values in the forms of the Open Inference Protocol, for servers and clients of it alike."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NUMBER_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""The datatypes of numbers for which numpy has a dtype, little-endian: all but BF16."""
_LENGTH = struct.Struct("<I")


def flatten(data: object, shape: tuple[int, ...]) -> list[Any] | None:
    """The values of a flat or fully nested list, or None if their number is not the shape's."""
    if not isinstance(data, list):
        return None
    if len(data) == math.prod(shape) and not (data and isinstance(data[0], list)):
        return data
    level = [data]
    for size in shape:
        if not all(isinstance(item, list) and len(item) == size for item in level):
            return None
        level = list(chain.from_iterable(level))
    return level


def bf16_bits(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 as the bits of BF16, rounded to nearest even, same shape; every NaN becomes the quiet one."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), np.uint64(0x7FC0), rounded).astype("<u2")


def join_byte_strings(items: Iterable[bytes]) -> bytes:
    """BYTES elements as raw contents: each after its length in four little-endian bytes."""
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def split_byte_strings(raw: bytes | memoryview, count: int) -> list[bytes] | None:
    """The elements of BYTES raw contents, or None if the bytes are not exactly `count` of them."""
    if 4 * count > memoryview(raw).nbytes:  # before anything is allocated for as many
        return None
    content = bytes(raw)
    items: list[bytes] = []
    start = 0
    for _ in range(count):
        body = start + 4
        if body > len(content):
            return None
        start = body + _LENGTH.unpack_from(content, body - 4)[0]
        items.append(content[body:start])
    return items if start == len(content) else None
