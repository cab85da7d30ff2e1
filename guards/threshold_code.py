"""Threshold code: 256 bits of a narrow table row, of which as many differ as its columns are apart.

Bit j says whether one column lies beyond one threshold. A column of standardised levels has thresholds in
equal strata of its range, so the Hamming distance of two rows is the sum of their distances over the columns
(L1) in steps of a stratum. An attack moves few columns by little, which is little in this sum. Of SimHash
bits, which are of all columns together, it flips more: where 5 % of honest rows of `configs/letters` match
one of 1,024 others, two columns moved by one step were found in 46 % of all rows by SimHash, and in 75 % by
this code; where 13 % match, in 75 and 100 %, and one column moved by three in 11 and 90 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4, LEVELS_A_DEVIATION, MIDDLE_LEVEL, NARROW
from guards.salt import words
from guards.simhash import BITS, U8

REACH: Final = 2.5
"""Deviations, on both sides of the mean, within which thresholds lie."""


@dataclass(slots=True, eq=False)
class ThresholdCode:
    """columns: levels a row, 1 .. 64, so that each has four thresholds or more.
    salt: at least 16 secret bytes, of the thresholds and the bits' order.

    Raises:  ValueError for more columns, or none.
    """

    columns: int
    salt: bytes = field(repr=False)
    _columns: NDArray[np.intp] = field(init=False, repr=False)
    _thresholds: F4 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.columns <= NARROW:
            raise ValueError(f"threshold code: {self.columns} columns, expected 1 .. {NARROW}")
        drawn = words(self.salt, "thresholds", 2 * BITS + self.columns)
        first = np.argsort(drawn[2 * BITS :])  # the columns that have one threshold more
        columns = first[np.arange(BITS) % self.columns]
        strata = np.arange(BITS) // self.columns
        several = np.bincount(columns)[columns]
        within = (drawn[:BITS] >> np.uint64(40)).astype(np.float64) / 2**24
        deviations = REACH * (2 * (strata + within) / several - 1)
        order = np.argsort(drawn[BITS : 2 * BITS])
        self._columns = columns[order]
        self._thresholds = (MIDDLE_LEVEL + LEVELS_A_DEVIATION * deviations[order]).astype(np.float32)

    def bits(self, levels: F4) -> U8:
        """uint64[n, 4] of float32[n, columns] from `Coarse.levels`.

        Cost:    4 us at n=1, 0.5 us a row at n=32.
        Source:  Gionis, Indyk, Motwani, VLDB 1999, section 4.1: unary codes turn L1 into Hamming. Deviation:
                 thresholds are drawn, one in each stratum, instead of one for every value.
        """
        beyond = levels.take(self._columns, axis=1) > self._thresholds
        return np.packbits(beyond, axis=1).view(np.uint64)
