"""Secret numbers from the salt of a deployment: the same salt and purpose give the same numbers everywhere.

SHAKE-256 of purpose and salt, so that what is seen of one purpose says nothing of another. numpy's generators
are not used: their streams may change with its version.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST_BYTES: Final = 16
_BYTES_A_NORMAL: Final = 4
_MEAN_OF_FOUR: Final = 510
_EIGHTH: Final = 3


def words(salt: bytes, purpose: str, n: int) -> NDArray[np.uint64]:
    """uint64[n], uniform. Raises ValueError for a salt of fewer than 16 bytes. Cost: O(n), 20 ns each."""
    return np.frombuffer(_stream(salt, purpose, 8 * n), "<u8").astype(np.uint64)


def near_normal(salt: bytes, purpose: str, n: int) -> NDArray[np.float32]:
    """float32[n] of whole numbers in [-64, 64], nearly normal with a deviation of 18.5.

    A sum of four bytes, of which the mean is taken off and an eighth is kept. Whole numbers this small keep a
    product with them exact (`coarse.py`). Raises as `words`.
    """
    four = np.frombuffer(_stream(salt, purpose, _BYTES_A_NORMAL * n), np.uint8).reshape(n, _BYTES_A_NORMAL)
    return np.asarray((four.sum(1, dtype=np.int32) - _MEAN_OF_FOUR) >> _EIGHTH, np.float32)


def _stream(salt: bytes, purpose: str, n: int) -> bytes:
    if len(salt) < LEAST_BYTES:
        raise ValueError(
            f"salt: {len(salt)} bytes, needs at least {LEAST_BYTES}; use secrets.token_bytes(32)"
        )
    return hashlib.shake_256(len(purpose).to_bytes(2) + purpose.encode() + salt).digest(n)
