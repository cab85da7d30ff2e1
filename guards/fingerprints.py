"""Fingerprints of a picture's windows (Blacklight): pictures that share many are made from each other.

A window is 20 neighbouring values in the order of the row, quantised. Of all windows of a picture the 50
with the largest salted hashes are kept: of two pictures, a set chosen alike. Windows of one value are
skipped, else pictures match by an empty background. SimHash sees the whole picture and misses large changes
of small parts; fingerprints see parts that have not changed, and miss small changes everywhere.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4
from guards.salt import words

U4: TypeAlias = NDArray[np.uint32]

QUANTUM: Final = 50
WINDOW: Final = 20
KEPT: Final = 50
SHARED: Final = 25
"""So many fingerprints in common are a match."""
LEAST_VALUES: Final = WINDOW + SHARED - 1
_TAKEN: Final = 100
_PER_QUANTUM: Final = np.float32(1 / QUANTUM)
_AT_ONCE: Final = 28
_KEY_BITS: Final = 17
"""100 times the largest key is below 2^24, where float32 holds every whole number."""


class Fingerprints:
    """The salted hashes of one deployment. salt: at least 16 secret bytes."""

    def __init__(self, salt: bytes) -> None:
        drawn = words(salt, "fingerprints", WINDOW + 2)
        keys = (drawn[:WINDOW] >> np.uint64(64 - _KEY_BITS)).astype(np.float32)
        self._first, self._second = ((drawn[WINDOW:] >> np.uint64(32)) | np.uint64(1)).astype(np.uint32)
        self._of_flat = keys.sum()
        self._banded = np.zeros((_AT_ONCE + WINDOW - 1, _AT_ONCE), np.float32)
        for i in range(_AT_ONCE):
            self._banded[i : i + WINDOW, i] = keys

    def of(self, levels: F4) -> U4:
        """The kept fingerprints of rows, the largest hash first; 0 where a row has fewer than 50.

        Args:    levels: float32[n, d], whole numbers in [0, 255], as `Coarse.levels` gives of pictures.
        Returns: uint32[n, 50].
        Raises:  ValueError for fewer than 44 values a row: 25 windows could never be shared.
        Cost:    O(n d): docs/guards.md, near-duplicates.
        Source:  Li et al., Blacklight, USENIX Security 2022, section 4. Deviations: a salted sum of secret
                 multiples of the window's values, multiplied again, instead of SHA-256: two different windows
                 are alike with a chance of 2^-17, and 25 of them would have to be. Flat windows are skipped.
                 Of pictures beyond 32 x 32 the windows are those of the averaged picture: the cost is
                 bounded.
        """
        if levels.shape[1] < LEAST_VALUES:
            raise ValueError(
                f"fingerprints: {levels.shape[1]} values a row, needs {LEAST_VALUES}; use SimHash alone"
            )
        found: U4 = _largest(self._windows(levels), _TAKEN) * self._second
        return found

    def _windows(self, levels: F4) -> U4:
        """uint32[n, d - 19]: a hash of each window of digits 0 .. 5, 0 for a flat one.

        The sums of 28 neighbouring windows are the product of their 47 digits with a banded matrix. All sums
        are whole and below 2^24, so exact.
        """
        n, d = levels.shape
        windows = d - WINDOW + 1
        blocks = -(-windows // _AT_ONCE)
        digits = np.zeros((n, blocks * _AT_ONCE + WINDOW - 1), np.float32)
        np.multiply(levels, _PER_QUANTUM, out=digits[:, :d])
        np.floor(digits, out=digits)
        shape = (n, blocks, _AT_ONCE + WINDOW - 1)
        strided: F4 = np.ndarray(shape, np.float32, digits, 0, (digits.strides[0], 4 * _AT_ONCE, 4))
        sums = (strided.copy() @ self._banded).reshape(n, blocks * _AT_ONCE)[:, :windows]
        uneven = sums != digits[:, :windows] * self._of_flat
        hashes: U4 = sums.astype(np.uint32)
        hashes *= self._first
        hashes *= uneven
        return hashes


def shared(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """How many fingerprints two rows have in common: int64[p] in [0, 50].

    Args:    a, b: unsigned [p, 50], distinct in a row but for zeros, which do not count.
    Cost:    O(p): about 2 us each.
    """
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    twice = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] != 0)
    return np.asarray(twice.sum(1), np.int64)


def _largest(hashes: U4, taken: int) -> U4:
    """uint32[n, 50]: the largest distinct hashes, descending, then zeros.

    They are sought among the `taken` largest, and in all for a row in which windows repeat too often.
    """
    taken = min(taken, hashes.shape[1])
    largest = np.sort(np.partition(hashes, -taken, axis=1)[:, -taken:], axis=1)
    largest[:, :-1] *= largest[:, 1:] != largest[:, :-1]
    largest.sort(axis=1)
    found = np.zeros((len(hashes), KEPT), np.uint32)
    found[:, : min(KEPT, taken)] = largest[:, ::-1][:, :KEPT]
    if taken < hashes.shape[1] and (short := found[:, -1] == 0).any():
        found[short] = _largest(hashes[short], hashes.shape[1])
    return found
