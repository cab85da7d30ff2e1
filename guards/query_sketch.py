"""What is remembered of a query: SimHash, fingerprints of a picture, and a hash of its whole content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4, Coarse
from guards.contents import Contents
from guards.fingerprints import KEPT, LEAST_VALUES, U4, Fingerprints
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
    _contents: Contents = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._simhash = SimHash(self.coarse, self.salt)
        self._fingerprints = Fingerprints(self.salt)
        self._contents = Contents(self.salt)
        is_picture = len(self.coarse.shape) > 1 and len(self.coarse.axes) >= LEAST_VALUES
        self.prints = KEPT if is_picture else 0

    def sketch(self, x: F4, texts: NDArray[Any] | None = None, contents: U8 | None = None) -> Sketches:
        """Everything that is remembered of rows.

        Args:    x, texts: as in `Coarse.fit`; contents: uint64[n] of whole rows (`contents.py`), where they
                 hold more than x and texts.
        Raises:  ValueError for another shape than in fit.
        Cost:    that of SimHash and fingerprints, and O(values): docs/guards.md, near-duplicates.
        """
        levels = self.coarse.levels(x, texts)
        bits = self._simhash.bits(self.coarse.components(levels))
        if contents is None:
            given = {"x": x} if texts is None else {"x": x, "texts": texts.astype(object)}
            contents = self._contents.of(given, len(x))
        if not self.prints:
            return Sketches(bits, contents, np.zeros((len(x), 0), np.uint32))
        return Sketches(bits, contents, self._fingerprints.of(levels))
