"""What is remembered of a query: bits that near rows share, fingerprints, and a hash of the content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4, Coarse
from guards.contents import Contents
from guards.fingerprints import LEAST_VALUES, Fingerprints, Prints
from guards.simhash import U8, SimHash
from guards.threshold_code import ThresholdCode


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """Of n rows. bits: uint64[n, 4]; contents: uint64[n]; prints: fingerprints, none of a table."""

    bits: U8
    contents: U8
    prints: Prints

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The sketches of some rows, by their numbers."""
        prints = Prints(self.prints.largest[rows], self.prints.marks[rows])
        return type(self)(self.bits[rows], self.contents[rows], prints)


def code_of(coarse: Coarse, salt: bytes) -> SimHash | ThresholdCode:
    """What makes the bits of `Coarse.points`: thresholds of narrow tables, planes of all other rows.

    Args:    salt: at least 16 secret bytes.
    """
    return ThresholdCode(len(coarse.axes), salt) if coarse.is_narrow_table else SimHash(coarse, salt)


@dataclass(slots=True, eq=False)
class Sketcher:
    """Sketches rows with the secrets of one deployment.

    coarse: fitted; salt: at least 16 secret bytes. Rows of 4 axes with 44 levels or more have fingerprints.
    """

    coarse: Coarse
    salt: bytes = field(repr=False)
    has_prints: bool = field(init=False)
    _code: SimHash | ThresholdCode = field(init=False, repr=False)
    _fingerprints: Fingerprints | None = field(init=False, repr=False)
    _contents: Contents = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._code = code_of(self.coarse, self.salt)
        self._contents, values = Contents(self.salt), len(self.coarse.axes)
        self.has_prints = len(self.coarse.shape) > 1 and values >= LEAST_VALUES
        self._fingerprints = Fingerprints(self.salt, values) if self.has_prints else None

    def sketch(self, x: F4, texts: NDArray[Any] | None = None, contents: U8 | None = None) -> Sketches:
        """Everything that is remembered of rows.

        Args:    x, texts: as in `Coarse.fit`; contents: uint64[n] of whole rows (`contents.py`), where they
                 hold more than x and texts.
        Raises:  ValueError for another shape than in fit.
        Cost:    that of bits and fingerprints, and O(values): docs/guards.md, near-duplicates.
        """
        levels = self.coarse.levels(x, texts)
        bits = self._code.bits(self.coarse.points(levels))
        if contents is None:
            given = {"x": x} if texts is None else {"x": x, "texts": texts.astype(object)}
            contents = self._contents.of(given, len(x))
        prints = self._fingerprints.of(levels) if self._fingerprints else Prints.none(len(x))
        return Sketches(bits, contents, prints)
