"""Fingerprints of a picture's windows (Blacklight): pictures that share many are made from each other.

A window is 20 neighbouring values in the order of the row, quantised. Of each fiftieth part of a picture the
window with the largest salted hash is kept: of two pictures, a set chosen alike, and mostly where one is
shifted too. Windows of one value are skipped, else pictures match by an empty background.
SimHash sees the whole picture and misses large changes of small parts; fingerprints see parts that have not
changed, and miss small changes everywhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4
from guards.salt import words
from guards.simhash import U8

U4: TypeAlias = NDArray[np.uint32]

QUANTUM: Final = 50
WINDOW: Final = 20
KEPT: Final = 50
LARGEST: Final = 4
MARKS: Final = 1024
WORDS: Final = MARKS // 64
LEAST_SHARED: Final = 8
"""So many fingerprints in common are a match at least; how many, is fitted to honest rows."""
LEAST_VALUES: Final = 44
"""Of fewer values the SimHash sees each."""
_PER_QUANTUM: Final = np.float32(1 / QUANTUM)
_KEY_BITS: Final = 18
"""Five times the sum of the keys' sizes is below 2^24, where float32 holds every whole number."""


class Prints(NamedTuple):
    """largest: uint32[n, 4], descending, 0 where a row has fewer; marks: uint64[n, 16], a set of 1,024 bits
    with one for each fingerprint.
    """

    largest: U4
    marks: U8

    @classmethod
    def none(cls, n: int) -> Prints:
        """Of n rows that have none, as those of tables."""
        return cls(np.zeros((n, 0), np.uint32), np.zeros((n, 0), np.uint64))


class Fingerprints:
    """The salted hashes of one deployment.

    salt: at least 16 secret bytes; values: of a row, 44 or more. Raises ValueError for fewer.
    """

    def __init__(self, salt: bytes, values: int) -> None:
        if values < LEAST_VALUES:
            raise ValueError(f"fingerprints: {values} values a row, needs {LEAST_VALUES}; use SimHash alone")
        drawn = words(salt, "fingerprints", WINDOW + 2)
        keys = (drawn[:WINDOW] >> np.uint64(64 - _KEY_BITS)).astype(np.int64)
        keys -= keys.sum() // WINDOW
        keys[: keys.sum()] -= 1  # they sum to 0, and so does a window of one value
        self._first, self._second = ((drawn[WINDOW:] >> np.uint64(32)) | np.uint64(1)).astype(np.uint32)
        self._values, windows = values, values - WINDOW + 1
        self._part = -(-windows // KEPT)
        self._parts = -(-windows // self._part)
        self._banded = np.zeros((self._part, self._part + WINDOW - 1), np.float32)
        for i, row in enumerate(self._banded):
            row[i : i + WINDOW] = keys

    def of(self, levels: F4) -> Prints:
        """The kept fingerprints of rows.

        Args:    levels: float32[n, values], whole numbers in [0, 255], as `Coarse.levels` gives of pictures.
        Raises:  ValueError for another number of values.
        Cost:    O(n d): docs/guards.md, near-duplicates.
        Source:  Li et al., Blacklight, USENIX Security 2022, section 4. Deviations: a salted sum of secret
                 multiples of the window's values, multiplied again, instead of SHA-256: two windows are alike
                 with a chance of 2^-17, and where they differ by a constant, as in brightness. The largest of
                 each of 50 parts (winnowing: Schleimer et al., SIGMOD 2003) instead of the 50 largest of all:
                 a tenth of the time, and at the same share of honest matches more of each attack's queries
                 were found. A set of bits, in which two fingerprints are one with a chance of 2^-10, instead
                 of a list. Flat windows are skipped. Of pictures beyond 32 x 32 the windows are those of the
                 averaged picture: the cost is bounded.
        """
        if levels.shape[1] != self._values:
            raise ValueError(f"fingerprints: {levels.shape[1]} values a row, expected {self._values}")
        largest = self._windows(levels).max(axis=1)
        largest *= self._second
        return Prints(_largest_of(largest), _marks(largest))

    def _windows(self, levels: F4) -> U4:
        """uint32[n, part, parts]: a hash of each window of digits 0 .. 5, 0 for a flat one.

        The sums of all windows of a part are the product of its digits with a banded matrix. All sums are
        whole and below 2^24, so exact. Beyond the row its last digit is repeated.
        """
        n, part = len(levels), self._part
        digits = np.zeros((n, self._parts * part + WINDOW - 1), np.float32)
        np.multiply(levels, _PER_QUANTUM, out=digits[:, : self._values])
        np.floor(digits, out=digits)
        digits[:, self._values :] = digits[:, self._values - 1, None]
        shape, steps = (n, self._parts, part + WINDOW - 1), (digits.strides[0], 4 * part, 4)
        overlapping: F4 = np.ndarray(shape, np.float32, digits, 0, steps)
        sums = self._banded @ overlapping.copy().transpose(0, 2, 1)
        hashes: U4 = sums.astype(np.int32).view(np.uint32)
        hashes *= self._first
        return hashes


def shared(a: U8, b: U8) -> NDArray[np.int64]:
    """How many fingerprints two rows have in common: int64[...] of marks uint64[..., 16] each, broadcast.

    Cost:    50 ns a pair.
    """
    return np.asarray(np.bitwise_count(a & b).sum(-1, dtype=np.int64))


def _marks(prints: U4) -> U8:
    """uint64[n, 16] of uint32[n, parts]. The first bit is that of no fingerprint, and of one in 1,024."""
    n = len(prints)
    marks = np.zeros((n, MARKS), np.bool_)
    places = (prints >> np.uint32(22)).astype(np.intp)
    places += np.arange(0, n * MARKS, MARKS)[:, None]
    marks.reshape(-1)[places] = True
    marks[:, 0] = False
    return np.packbits(marks, axis=1).view(np.uint64)


def _largest_of(prints: U4) -> U4:
    """uint32[n, 4]: the largest distinct ones, descending, then zeros."""
    ordered = np.sort(prints, axis=1)
    ordered[:, :-1] *= ordered[:, 1:] != ordered[:, :-1]
    ordered.sort(axis=1)
    return ordered[:, : -LARGEST - 1 : -1]
