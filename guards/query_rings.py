"""The latest queries of each principal: a ring of 1,024, for as many principals as are allowed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from guards.simhash import U8

RING: Final = 1024

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(slots=True, eq=False)
class Ring:
    """first: uint64[1024], a word of each SimHash; numbers: int64[1024], of the queries, -1 for none."""

    first: U8 = field(default_factory=lambda: np.zeros(RING, np.uint64))
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.full(RING, -1, np.int64))
    added: int = 0

    def add(self, first: U8, numbers: NDArray[np.int64]) -> None:
        """Add n queries in the place of the oldest."""
        first, numbers = first[-RING:], numbers[-RING:]
        places = np.arange(self.added, self.added + len(numbers)) % RING
        self.first[places], self.numbers[places] = first, numbers
        self.added += len(numbers)


@dataclass(slots=True, eq=False)
class Rings:
    """Rings of at most `most` principals; that of the one heard of least recently is dropped.

    Of 16 KiB each: 16 MiB for 1,024.
    """

    most: int
    rings: OrderedDict[int, Ring] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"queries: {self.most} rings; needs one or more")

    def near(self, first: U8, principals: NDArray[np.int64], cut: int) -> Pairs:
        """Pairs whose first words differ in at most `cut` bits: a superset of those within it in all.

        Args:    first: uint64[n], a word of each SimHash; principals: int64[n].
        Returns: rows int64[p], and numbers of earlier queries of the row's own principal, int64[p].
        Cost:    O(1,024) a row: 8 us at n=1, 2 us a row at n=32.
        """
        rows, numbers = [], []
        for principal, own in _groups(principals):
            if (ring := self.rings.get(principal)) is not None:
                at, place = _within(ring.first[: ring.added], first if own is None else first[own], cut)
                rows.append(at if own is None else own[at])
                numbers.append(ring.numbers.take(place))
        if len(rows) == 1:
            return rows[0], numbers[0]
        nothing = np.zeros(0, np.int64)
        return np.concatenate([nothing, *rows]), np.concatenate([nothing, *numbers])

    def add(self, first: U8, principals: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Add queries to the rings of their principals. first: uint64[n]; others int64[n]."""
        for principal, own in _groups(principals):
            ring = self.rings.pop(principal, None) or Ring()
            self.rings[principal] = ring
            ring.add(*((first, numbers) if own is None else (first[own], numbers[own])))
        while len(self.rings) > self.most:
            self.rings.popitem(last=False)


def _within(ring: U8, first: U8, cut: int) -> Pairs:
    """Rows and places with at most `cut` different bits."""
    found = np.bitwise_count(ring[None] ^ first[:, None]) <= cut
    flat = np.flatnonzero(found)
    return flat // len(ring), flat % len(ring)


def _groups(principals: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64] | None]]:
    """Each principal with its rows in order; None for all rows."""
    listed = principals.tolist()
    distinct = dict.fromkeys(listed)
    if len(distinct) == 1:
        return [(listed[0], None)]
    return [(one, np.flatnonzero(principals == one)) for one in distinct]
