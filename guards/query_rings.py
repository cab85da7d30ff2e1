"""The latest queries of each principal: a ring of 1,024, for as many principals as are allowed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from guards.detector import I8
from guards.simhash import U8

RING: Final = 1024

Pairs = tuple[I8, I8]


@dataclass(slots=True, eq=False)
class Rings:
    """Rings of at most `most` principals; that of the one heard of least recently is dropped.

    first: uint64[most, 1024], a word of each SimHash; numbers: int64[most, 1024], one more than that of the
    query, 0 for none. 16 KiB a ring: 16 MiB for 1,024. Pages are taken as they fill.
    """

    most: int
    first: U8 = field(init=False, repr=False)
    numbers: I8 = field(init=False, repr=False)
    _rings: OrderedDict[int, int] = field(default_factory=OrderedDict, init=False, repr=False)
    _added: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"queries: {self.most} rings; needs one or more")
        self.first = np.zeros((self.most, RING), np.uint64)
        self.numbers = np.zeros((self.most, RING), np.int64)

    def __len__(self) -> int:
        return len(self._rings)

    def near(self, first: U8, principals: list[int], cut: int) -> Pairs:
        """Pairs whose first words differ in at most `cut` bits.

        Args:    first: uint64[n], a word of each SimHash; principals: n of them.
        Returns: rows int64[p], and numbers of earlier queries of the row's own principal, int64[p].
        Cost:    O(1,024) a row: 8 us at n=1, 1.5 us a row at n=32.
        """
        rings = [self._rings.get(principal, -1) for principal in principals]
        ring = rings[0]
        if rings.count(ring) == len(rings):
            if ring < 0:
                return np.zeros(0, np.int64), np.zeros(0, np.int64)
            filled = min(self._added[ring], RING)
            rows, places = _within(self.first[ring, :filled][None], first, cut)
            return rows, self.numbers[ring].take(places) - 1
        known = np.array([row for row, ring in enumerate(rings) if ring >= 0])
        at = np.array(rings)[known]
        rows, places = _within(self.first[at], first[known], cut)
        numbers = self.numbers[at[rows], places] - 1
        written = numbers >= 0
        return known[rows[written]], numbers[written]

    def add(self, first: U8, principals: list[int], numbers: I8) -> None:
        """Add queries to the rings of their principals. first: uint64[n]; numbers: int64[n]."""
        places = [self._place(principal) for principal in principals]
        self.first.reshape(-1)[places] = first
        self.numbers.reshape(-1)[places] = numbers + 1

    def of(self, principal: int) -> I8:
        """The numbers of the queries in a principal's ring, in no order."""
        ring = self._rings.get(principal)
        return np.zeros(0, np.int64) if ring is None else self.numbers[ring, : self._added[ring]] - 1

    def _place(self, principal: int) -> int:
        """Where a principal's next query goes, in its ring as the one heard of last."""
        ring = self._rings.pop(principal, None)
        if ring is None:
            ring = self._new_ring()
        self._rings[principal] = ring
        added = self._added[ring]
        self._added[ring] = added + 1
        return ring * RING + added % RING

    def _new_ring(self) -> int:
        if len(self._added) < self.most:
            self._added.append(0)
            return len(self._added) - 1
        _, ring = self._rings.popitem(last=False)
        self.numbers[ring], self._added[ring] = 0, 0
        return ring


def _within(rings: U8, first: U8, cut: int) -> Pairs:
    """Rows and places with at most `cut` different bits. rings: uint64[n or 1, filled]."""
    found = np.bitwise_count(rings ^ first[:, None]) <= cut
    flat = np.flatnonzero(found)
    rows = flat // found.shape[1]
    return rows, flat - rows * found.shape[1]
