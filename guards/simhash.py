"""SimHash: 256 bits of a row, of which similar rows share most; the planes that cut them are a secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4, Coarse
from guards.salt import near_normal

U8: TypeAlias = NDArray[np.uint64]

BITS: Final = 256
WORDS: Final = 4
OFFSET: Final = 0.5
"""Of the length of the components: with it, most near rows were found at the same share of honest matches."""


@dataclass(slots=True, eq=False)
class SimHash:
    """Which side of 256 secret planes a row's coarse components lie on.

    coarse: fitted and public. salt: at least 16 secret bytes of the deployment. Another salt gives unrelated
    bits; without it, which change of a row flips none of them cannot be computed.
    """

    coarse: Coarse
    salt: bytes = field(repr=False)
    _planes: F4 = field(init=False, repr=False)
    _offsets: F4 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        k = self.coarse.axes.shape[1]
        drawn = near_normal(self.salt, "simhash", (k + 1) * BITS).reshape(k + 1, BITS)
        self._planes = drawn[:k].copy()
        self._offsets = np.rint(drawn[k] * (OFFSET * self.coarse.length)).astype(np.float32)

    def sketch(self, x: F4, texts: NDArray[Any] | None = None) -> U8:
        """The bits of rows.

        Args:    x, texts: as in `Coarse.fit`.
        Returns: uint64[n, 4].
        Raises:  ValueError for another shape than in fit.
        Cost:    O(n (values + 256 k)): 17 us at n=1 of 28 x 28, 3 us a row at n=32.
        Source:  Charikar, STOC 2002. Deviations: the components are half-whitened; planes are whole numbers,
                 nearly normal; they do not pass through the mean but at a distance of it (a constant
                 coordinate is added), so that rows of few columns differ by more than their direction.
        """
        return self.bits(self.coarse.components(self.coarse.levels(x, texts)))

    def bits(self, components: F4) -> U8:
        """uint64[n, 4] of float32[n, k] from `Coarse.components`; every sum is exact."""
        sides = components @ self._planes > self._offsets
        return np.packbits(sides, axis=1).view(np.uint64)


def hamming(a: U8, b: U8) -> NDArray[np.int64]:
    """How many of 256 bits differ: int64[...] in [0, 256] of uint64[..., 4] each, broadcast."""
    counts = np.bitwise_count(a ^ b)
    found: NDArray[np.int64] = counts[..., 0].astype(np.int64)
    for word in range(1, WORDS):
        found += counts[..., word]
    return found
