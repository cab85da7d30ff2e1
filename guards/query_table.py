"""Which earlier queries may resemble a row: a hash table of a fixed size over the queries of all principals.

Locality-sensitive hashing: a query is entered once under each of 16 keys, and a similar one has some of the
keys in common. A key names a bucket of four entries, and a new entry takes the place of one of them at
random. So an entry survives each entry into its bucket with a chance of 3/4, whatever its age: memory decays
exponentially, and no caller can tell which query is forgotten next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from guards.fingerprints import LARGEST
from guards.query_sketch import Sketches
from guards.salt import words

BANDS: Final = 16
WAYS: Final = 4
LEAST_RETAINED, MOST_RETAINED = 2**10, 2**24

MOST_OF_WIDE: Final = 8
_MIXED: Final = np.int64(0x9E3779B1)
"""2^32 over the golden ratio: a product's middle bits depend on all bits below them (Knuth, TAOCP 6.4)."""

Keys = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class QueryTable:
    """Places of earlier queries by their keys.

    retained: queries, a power of two in [2^10, 2^24]; of n bytes: 64 times retained. has_prints: whether four
    bands hold fingerprints; the others hold bits, and one the content. cut: so many bits differ of those that
    are sought, at most. salt: of the choice of the entries that are forgotten.

    With keys that are equally frequent an entry survives t queries with a chance of exp(-t / retained): a
    half-life of 0.69 times retained. Frequent keys are forgotten sooner.
    """

    retained: int
    has_prints: bool
    cut: int
    salt: bytes = field(repr=False)
    entries: NDArray[np.uint32] = field(init=False, repr=False)
    _sketch_bands: int = field(init=False, repr=False)
    _masks: Keys = field(init=False, repr=False)
    _starts: Keys = field(init=False, repr=False)
    _ways: NDArray[np.int64] = field(init=False, repr=False)
    _wide: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = self.retained
        if not LEAST_RETAINED <= size <= MOST_RETAINED or size & (size - 1):
            raise ValueError(
                f"queries: retains {size}; a power of two from {LEAST_RETAINED} to {MOST_RETAINED}"
            )
        self.entries = np.zeros((BANDS * size // WAYS, WAYS), np.uint32)
        self._wide = self.cut <= MOST_OF_WIDE or size // WAYS > 1 << 16
        self._sketch_bands = BANDS - 1 - LARGEST * self.has_prints
        self._masks = np.full(BANDS, size // WAYS - 1)
        self._starts = np.arange(BANDS) * (size // WAYS)
        if self.has_prints:
            self._masks[-LARGEST:] = LARGEST * size // WAYS - 1
            self._starts[-LARGEST:] = self._starts[-LARGEST]
        drawn = words(self.salt, "ways", 1 << 12).view(np.uint16)
        self._ways = (drawn[: len(drawn) // BANDS * BANDS] % WAYS).reshape(-1, BANDS).astype(np.int64)

    @property
    def first_print_band(self) -> int:
        """The band after those of bits and of the content."""
        return self._sketch_bands + 1

    def keys(self, sketches: Sketches) -> Keys:
        """The bucket of each band: int64[n, 16]. Those of bits first, then content, fingerprints.

        A key of bits is 16 of them, or 32 where they are to be nearly equal: fewer rows of a table then fall
        into one bucket, and of rows within 8 bits 99 % have one of 11 keys in common. A band of fingerprints
        has the largest, the second largest ...; all four share their buckets, so that
        one is also found where it comes at another place.
        """
        n, bands = len(sketches), self._sketch_bands
        halves = sketches.bits.view(np.uint16).reshape(n, BANDS)
        keys = np.empty((n, BANDS), np.int64)
        keys[:, :bands] = halves[:, :bands]
        if self._wide:
            keys[:, :bands] += halves[:, 1 : bands + 1] * _MIXED
            keys[:, :bands] *= _MIXED
            keys[:, :bands] >>= 24
        keys[:, bands] = sketches.contents >> np.uint64(32)
        if self.has_prints:
            keys[:, bands + 1 :] = sketches.prints.largest
        keys &= self._masks
        keys += self._starts
        return keys

    def candidates(self, keys: Keys) -> NDArray[np.uint32]:
        """Entries of the buckets: uint32[n, 64], places in [0, retained). An empty entry gives place 0."""
        return self.entries.take(keys, axis=0).reshape(len(keys), BANDS * WAYS)

    def enter(self, keys: Keys, places: NDArray[np.int64]) -> None:
        """Enter queries under their keys, each in a random way of each bucket. places: int64[n]."""
        ways = self._ways.take(places, axis=0, mode="wrap")
        self.entries[keys, ways] = places.astype(np.uint32)[:, None]
