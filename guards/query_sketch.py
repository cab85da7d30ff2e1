"""What is remembered of a query: SimHash, fingerprints of a picture, and a hash of its whole content."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4, Coarse
from guards.fingerprints import KEPT, LEAST_VALUES, U4, Fingerprints
from guards.salt import words
from guards.simhash import U8, SimHash


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Of n rows. bits: uint64[n, 4]; contents: uint64[n]; prints: uint32[n, 50], or [n, 0] of a table."""

    bits: U8
    contents: U8
    prints: U4

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The sketches of some rows, by their numbers."""
        return type(self)(self.bits[rows], self.contents[rows], self.prints[rows])


@dataclass(slots=True, eq=False)
class Sketcher:
    """Sketches rows with the secrets of one deployment.

    coarse: fitted; salt: at least 16 secret bytes. Rows of 4 axes with 44 levels or more have fingerprints.
    """

    coarse: Coarse
    salt: bytes = field(repr=False)
    prints: int = field(init=False)
    _simhash: SimHash = field(init=False, repr=False)
    _fingerprints: Fingerprints = field(init=False, repr=False)
    _keys: U8 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._simhash = SimHash(self.coarse, self.salt)
        self._fingerprints = Fingerprints(self.salt)
        self._keys = words(self.salt, "content", math.prod(self.coarse.shape.tolist()))
        is_picture = len(self.coarse.shape) > 1 and len(self.coarse.axes) >= LEAST_VALUES
        self.prints = KEPT if is_picture else 0

    def sketch(self, x: F4, texts: NDArray[Any] | None = None) -> Sketches:
        """Everything that is remembered of rows.

        Args:    x, texts: as in `Coarse.fit`.
        Raises:  ValueError for another shape than in fit.
        Cost:    that of SimHash and fingerprints, and O(values): docs/guards.md, near-duplicates.
        """
        levels = self.coarse.levels(x, texts)
        bits = self._simhash.bits(self.coarse.components(levels))
        contents = self._contents(x, texts)
        if not self.prints:
            return Sketches(bits, contents, np.zeros((len(x), 0), np.uint32))
        return Sketches(bits, contents, self._fingerprints.of(levels))

    def _contents(self, x: F4, texts: NDArray[Any] | None) -> U8:
        """uint64[n]: equal for equal rows, and for others with a chance of at most 2^-33, mostly of 2^-64.

        A sum of secret numbers times the bits of each value, to which a keyed BLAKE2b of the texts is added.
        A negative zero is another content than zero.

        Source:  Dietzfelbinger et al., J. Algorithms 25 (1997), for the sum.
        """
        values = np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(len(x), len(self._keys))
        contents: U8 = values.astype(np.uint64) @ self._keys
        if texts is not None:
            contents += np.array([self._text_hash(row) for row in texts.tolist()], np.uint64)
        return contents

    def _text_hash(self, row: list[str | bytes]) -> int:
        digest = hashlib.blake2b(digest_size=8, key=self.salt[:64])
        for text in row:
            data = text.encode() if isinstance(text, str) else text
            digest.update(len(data).to_bytes(8) + data)
        return int.from_bytes(digest.digest())
