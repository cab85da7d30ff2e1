"""Pairs of a row and an earlier query that may be near: which are, and the best of each row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from guards.detector import I8
from guards.fingerprints import shared
from guards.simhash import BITS, U8, hamming

NOTHING, EXACT, NEAR = 0, 1, 2
"""The kinds of a match."""
_DISTANCE_AT, _INEXACT_AT, _NOT_NEAR = 40, 50, 1 << 60


@dataclass(frozen=True, slots=True)
class Cuts:
    """The largest distances, of 256, that are near; -1 for none.

    own: to a query of the row's own principal; any: of another, of which far more are retained. shared: so
    many fingerprints in common are near as well; 51: none are. own_first, any_first: the most different bits
    of the first word of a pair that is compared further.
    """

    own: int
    any: int
    shared: int
    own_first: int = field(init=False)
    any_first: int = field(init=False)

    def __post_init__(self) -> None:
        if not (-1 <= self.any <= BITS and -1 <= self.own <= BITS and self.shared >= 1):
            what = f"cuts {self.own} and {self.any}, {self.shared} shared fingerprints"
            raise ValueError(f"queries: {what}; cuts are -1 .. {BITS}, and one shared fingerprint or more")
        object.__setattr__(self, "own_first", _most_of_first(self.own))
        object.__setattr__(self, "any_first", _most_of_first(self.any))


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """Columns of n queries. bits: uint64[n, 4]; contents: uint64[n], of the whole row; marks: uint64[n, 16]
    or [n, 0], of fingerprints; principals: int64[n].
    """

    bits: U8
    contents: U8
    marks: U8
    principals: I8


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """p pairs. rows: int64[p]; others: int64[p], where the other query is among its own; cuts: int64[p], the
    largest near distance of each; by_prints: from this pair on, pairs that were found by a fingerprint.
    """

    rows: I8
    others: I8
    cuts: I8
    by_prints: int


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Of p pairs. ranks: int64[p], smaller is better, and at least 2^60 for what is no match; the others
    int64[p].
    """

    rows: I8
    numbers: I8
    principals: I8
    ranks: I8
    distances: I8
    shared: I8


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What each of n rows matches best: a repetition before all else, then the smallest distance.

    kinds: uint8[n], NOTHING, EXACT (the same content) or NEAR. queries: int64[n], the number of the earlier
    query, or -1. principals: int64[n], whose query it is (`QueryMemory.principal`), or 0. distances:
    int64[n], Hamming, -1 without a match; shared: int64[n], fingerprints in common where they were counted,
    else 0.
    """

    kinds: NDArray[np.uint8]
    queries: I8
    principals: I8
    distances: I8
    shared: I8


def compare(mine: Queries, theirs: Queries, pairs: Pairs, numbers: I8, least_shared: int) -> Compared | None:
    """Judge pairs of `mine` and `theirs`; None if none can match.

    Args:    numbers: int64[p], of the other queries, for the result.
    Cost:    O(p): some 10 us, and 50 to 100 ns for each of many.
    """
    distances = hamming(mine.bits.take(pairs.rows, axis=0), theirs.bits.take(pairs.others, axis=0))
    common = np.zeros(len(distances), np.int64)
    if pairs.by_prints < len(common):
        rows, others = pairs.rows[pairs.by_prints :], pairs.others[pairs.by_prints :]
        common[pairs.by_prints :] = shared(mine.marks.take(rows, axis=0), theirs.marks.take(others, axis=0))
    shares = common >= least_shared
    at = np.flatnonzero(shares | (distances <= np.maximum(pairs.cuts, 0)))
    if not len(at):
        return None
    rows, others, distances, common = pairs.rows[at], pairs.others[at], distances[at], common[at]
    exact = mine.contents.take(rows) == theirs.contents.take(others)
    near = exact | shares[at] | (distances <= pairs.cuts[at])
    ranks = (~exact).astype(np.int64) << _INEXACT_AT
    ranks += distances << _DISTANCE_AT
    ranks += np.arange(len(rows))
    ranks[~near] = _NOT_NEAR
    return Compared(rows, numbers[at], theirs.principals.take(others), ranks, distances, common)


def best(n: int, found: Compared) -> Matches:
    """The best match of each of n rows."""
    least = np.full(n, _NOT_NEAR, np.int64)
    np.minimum.at(least, found.rows, found.ranks)
    hit = np.flatnonzero(least < _NOT_NEAR)
    won = least[hit] & ((1 << _DISTANCE_AT) - 1)
    matches = nothing(n)
    matches.kinds[hit] = np.where(least[hit] >> _INEXACT_AT, NEAR, EXACT)
    matches.queries[hit] = found.numbers[won]
    matches.principals[hit] = found.principals[won]
    matches.distances[hit] = found.distances[won]
    matches.shared[hit] = found.shared[won]
    return matches


def nothing(n: int) -> Matches:
    """The matches of n rows that match nothing."""
    none, zero = np.full((2, n), -1, np.int64), np.zeros((2, n), np.int64)
    return Matches(np.zeros(n, np.uint8), none[0], zero[0], none[1], zero[1])


def _most_of_first(cut: int) -> int:
    """The most different bits of the first of four words, of which 99 of 100 pairs at the cut have no more.

    A pair beyond it is not near. So honest rows are near a little less often than is certified.
    """
    return min(cut, math.ceil(cut / 4 + 2.4 * math.sqrt(cut * 3 / 16))) if cut > 0 else 0
