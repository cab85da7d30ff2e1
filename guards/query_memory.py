"""A memory of recent queries: is a row a repetition of an earlier one, or nearly one?

An attack that asks a model for a gradient or a boundary, or copies it around the rows it has, sends many
nearly equal rows. Two memories find them: the ring of the row's own principal, which is searched completely,
and a table over all principals, for an attacker with many keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4
from guards.detector import I8
from guards.fingerprints import LARGEST, WORDS, shared
from guards.near_pairs import (
    Cuts,
    Matches,
    Pairs,
    Queries,
    best,
    compare,
    nothing,
)
from guards.query_rings import Rings
from guards.query_sketch import Sketches
from guards.query_table import WAYS, QueryTable
from guards.simhash import hamming

RINGS: Final = 1024
RETAINED: Final = 2**18
NAMES_KEPT: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n rows made ready. keys: int64[n, 16], of the table; heads: uint32[n, 4 or 0], largest fingerprints."""

    queries: Queries
    keys: I8
    heads: NDArray[np.uint32]


class Kept(NamedTuple):
    """What is remembered of an answer. answer: uint8[answer_bytes]. source: the number of the query to which
    a model gave it: the query's own, unless it was given another's.
    """

    answer: NDArray[np.uint8]
    source: int


@dataclass(slots=True, eq=False)
class QueryMemory:
    """The latest queries, by number: 0 for the first, and so on.

    cuts: which distances are near. salt: at least 16 secret bytes. has_prints: as of the `Sketcher`.
    retained: queries, a power of two in [2^10, 2^24]; answer_bytes: of the answer that
    is kept with its query; rings: principals with a ring of their own.

    Memory, all of a fixed size: 16 KiB a ring, and for each retained query 64 bytes of table, 68 of sketch,
    principal, margin and source, 136 of fingerprints, and `answer_bytes`. Pages are taken as they fill.
    """

    cuts: Cuts
    salt: bytes = field(repr=False)
    has_prints: bool = False
    retained: int = RETAINED
    answer_bytes: int = 0
    rings: int = RINGS
    next_number: int = field(default=0, init=False)
    _table: QueryTable = field(init=False, repr=False)
    _rings: Rings = field(init=False, repr=False)
    _held: Queries = field(init=False, repr=False)
    _first: NDArray[np.uint64] = field(init=False, repr=False)
    _heads: NDArray[np.uint16] = field(init=False, repr=False)
    _margins: F4 = field(init=False, repr=False)
    _answers: NDArray[np.uint8] = field(init=False, repr=False)
    _sources: I8 = field(init=False, repr=False)
    _names: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        n, has = self.retained, self.has_prints
        self._table, self._rings = QueryTable(n, has, self.cuts.any, self.salt), Rings(self.rings)
        columns = np.zeros((n, 4), np.uint64), np.zeros(n, np.uint64), np.zeros((n, has * WORDS), np.uint64)
        self._held = Queries(*columns, np.zeros(n, np.int64))
        self._first = np.zeros(n, np.uint64)
        self._heads = np.zeros((n, has * LARGEST), np.uint16)
        self._margins = np.zeros(n, np.float32)
        self._answers = np.zeros((n, self.answer_bytes), np.uint8)
        self._sources = np.zeros(n, np.int64)

    def rows(self, sketches: Sketches, principals: Sequence[str]) -> Rows:
        """Rows as `look_up` and `insert` take them.

        Args:    sketches: of n rows, in order; principals: the name of each row's.
        Raises:  ValueError for another number of principals, or of fingerprints a row.
        """
        prints = sketches.prints
        if len(principals) != len(sketches) or bool(prints.marks.shape[1]) != self.has_prints:
            given = f"{len(principals)} principals, {prints.marks.shape[1]} words of fingerprints a row"
            expected = f"{len(sketches)} and {self.has_prints * WORDS}"
            raise ValueError(f"queries: {given}; expected {expected}, as the sketches")
        numbers = np.array([self.principal(one) for one in principals], np.int64)
        queries = Queries(sketches.bits, sketches.contents, prints.marks, numbers)
        return Rows(queries, self._table.keys(sketches), prints.largest)

    def look_up(self, rows: Rows, numbers: I8 | None = None) -> Matches:
        """What each row repeats or nearly repeats of the earlier queries. Changes nothing.

        Own queries are found among the last 1,024, all others where they share a band with the row:
        docs/guards.md, near-duplicates.

        Args:    numbers: int64[n], of the rows if they have been inserted: only queries before each are
                 found, among them earlier rows of the same batch.
        Cost:    O(1) a row: docs/guards.md.
        """
        n = len(rows.keys)
        if not n or not self.next_number:
            return nothing(n)
        before = np.full(n, self.next_number) if numbers is None else numbers
        pairs, others = self._earlier(rows, before)
        found = compare(rows.queries, self._held, pairs, others, self.cuts.shared)
        return nothing(n) if found is None else best(n, found)

    def insert(self, rows: Rows) -> I8:
        """Remember rows, without margin and answer until `remember`.

        Returns: int64[n], their numbers: next_number and following.
        Raises:  ValueError for more rows than are retained.
        Cost:    O(1) a row: docs/guards.md, near-duplicates.
        """
        mine = rows.queries
        if (n := len(rows.keys)) > self.retained:
            raise ValueError(f"queries: {n} rows at once, and {self.retained} are retained; insert fewer")
        numbers = np.arange(self.next_number, self.next_number + n)
        at = numbers & (self.retained - 1)
        held, first = self._held, mine.bits[:, 0]
        held.bits[at], held.contents[at], held.principals[at] = mine.bits, mine.contents, mine.principals
        self._first[at], self._margins[at], self._sources[at] = first, np.nan, -1
        if self.has_prints:
            held.marks[at], self._heads[at] = mine.marks, rows.heads >> np.uint32(16)
        self._table.enter(rows.keys, at)
        self._rings.add(first, mine.principals.tolist(), numbers)
        self.next_number += n
        return numbers

    def skip(self, n: int) -> None:
        """Give the next n numbers to queries that are not known, which are near no other."""
        at = np.arange(self.next_number, self.next_number + n) & (self.retained - 1)
        self._held.contents[at], self._held.principals[at], self._sources[at] = 0, 0, -1
        for column in (self._first, self._held.bits, self._held.marks, self._heads):
            column[at] = 0
        self.next_number += n

    def remember(self, numbers: I8, margins: F4, answers: NDArray[np.uint8], sources: I8) -> None:
        """Store what was answered to n queries; nothing of those that are no longer retained.

        Args:    numbers: int64[n]; margins: float32[n], between the two likeliest classes, NaN if there are
                 none; answers: uint8[n, answer_bytes]; sources: int64[n], as of `Kept`.
        Cost:    3 us.
        """
        kept = self._are_retained(numbers)
        at = numbers[kept] & (self.retained - 1)
        self._margins[at], self._answers[at], self._sources[at] = margins[kept], answers[kept], sources[kept]

    def repeat(self, number: int, earlier: int) -> None:
        """Store for one query what is stored for an earlier one, both retained. Cost: 1 us."""
        at, other = number & (self.retained - 1), earlier & (self.retained - 1)
        for column in (self._margins, self._answers, self._sources):
            column[at] = column[other]

    def recall(self, number: int) -> Kept | None:
        """What `remember` stored; None if nothing was, or the query is no longer retained. Cost: 1 us."""
        at = number & (self.retained - 1)
        source = int(self._sources[at])
        if not self._is_retained(number) or source < 0:
            return None
        return Kept(self._answers[at].copy(), source)

    def is_near(self, a: int, b: int) -> bool:
        """Whether two retained queries are near one another, as `look_up` judges a pair. Cost: 10 us."""
        if not (self._is_retained(a) and self._is_retained(b)):
            return False
        held, places = self._held, np.array([a, b]) & (self.retained - 1)
        bits, marks, (one, other) = held.bits[places], held.marks[places], held.principals[places].tolist()
        cut = self.cuts.own if one == other else self.cuts.any
        if int(hamming(bits[:1], bits[1:])[0]) <= cut:
            return True
        return int(shared(marks[0], marks[1])) >= self.cuts.shared

    def is_same(self, a: int, b: int) -> bool:
        """Whether two retained queries have one content. Cost: 1 us."""
        if not (self._is_retained(a) and self._is_retained(b)):
            return False
        contents, mask = self._held.contents, self.retained - 1
        return bool(contents[a & mask] == contents[b & mask])

    def margins(self, numbers: I8) -> F4:
        """float32[n]: what `remember` stored; NaN where nothing was, or the query is no longer retained."""
        return np.where(
            self._are_retained(numbers), self._margins[numbers & (self.retained - 1)], np.float32(np.nan)
        )

    def principal(self, name: str) -> int:
        """The number by which matches name a principal: a salted hash of 63 bits, always the same."""
        if (found := self._names.get(name)) is None:
            if len(self._names) >= NAMES_KEPT:
                self._names.clear()
            digest = hashlib.blake2b(name.encode(), digest_size=8, key=self.salt[:64], person=b"principal")
            found = self._names[name] = int.from_bytes(digest.digest()) >> 1
        return found

    def _are_retained(self, numbers: I8) -> NDArray[np.bool_]:
        return (numbers >= max(0, self.next_number - self.retained)) & (numbers < self.next_number)

    def _is_retained(self, number: int) -> bool:
        return max(0, self.next_number - self.retained) <= number < self.next_number

    def _earlier(self, rows: Rows, before: I8) -> tuple[Pairs, I8]:
        """Pairs with retained queries before each row that may be near, and the numbers of these.

        Of the ring, of the table's bits and contents, of its fingerprints.
        """
        mine, first = rows.queries, rows.queries.bits[:, 0]
        newest, mask = self.next_number - 1, self.retained - 1
        own, in_ring = self._rings.near(first, mine.principals.tolist(), self.cuts.own_first)
        candidates = self._table.candidates(rows.keys)
        end = self._table.first_print_band * WAYS
        by_bits = candidates[:, :end]
        close = np.bitwise_count(self._first.take(by_bits) ^ first[:, None]) <= self.cuts.any_first
        all_rows, places = [np.flatnonzero(close) // end], [by_bits[close]]
        if self.has_prints:
            at, by_prints = self._by_prints(rows.heads, candidates[:, end:])
            all_rows.append(at)
            places.append(by_prints)
        in_table = newest - ((newest - np.concatenate(places, dtype=np.int64)) & mask)
        at, numbers = np.concatenate([own, *all_rows]), np.concatenate([in_ring, in_table])
        earlier = (numbers < before[at]) & (numbers > newest - self.retained)
        cuts = np.full(len(at), self.cuts.any)
        cuts[: len(own)] = self.cuts.own
        by_distance = int(np.count_nonzero(earlier[: len(own) + len(places[0])]))
        at, numbers, cuts = at[earlier], numbers[earlier], cuts[earlier]
        return Pairs(at, numbers & mask, cuts, by_distance), numbers

    def _by_prints(
        self, heads: NDArray[np.uint32], candidates: NDArray[np.uint32]
    ) -> tuple[I8, NDArray[np.uint32]]:
        """Rows and places of candidates among whose largest fingerprints is the one that led to them."""
        sought = np.repeat((heads >> np.uint32(16)).astype(np.uint16), WAYS, axis=1)
        found = (self._heads.take(candidates, axis=0) == sought[:, :, None]).any(2) & (sought != 0)
        at = np.flatnonzero(found)
        return at // found.shape[1], candidates[found]
