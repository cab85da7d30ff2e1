"""A table of numbers by principal: open addressing in numpy arrays, where a Python dict takes thrice as much.

A row of the table is found by a 64-bit hash of the name, SipHash behind a secret of the table: who chooses
names cannot choose places. Two of n names share a row with a chance below n² / 2^65, 3e-8 for a million; the
names themselves are not kept. The table consists of 256 shards by the low bits of the hash, each an array of
its own with linear probing in the order of the hash. A shard that is full is made anew without what is over,
so that no call moves more than one shard (0.4 ms with a million principals), and so is one of them every
`SWEEP_EVERY` look-ups: a flood of names is forgotten by the traffic that follows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

SHARDS: Final = 256
FEWEST_SLOTS: Final = 8
FULL, AFTER_GROWTH = 0.75, 0.55
SWEEP_EVERY: Final = 1024
TAG_BYTES: Final = 16
_BITS: Final = 64
_ALL: Final = 2**_BITS - 1
Over: TypeAlias = Callable[[NDArray[np.float64], float], NDArray[np.bool_]]
Numbers: TypeAlias = "memoryview[float]"
Entry: TypeAlias = tuple[Numbers, int]
"""One principal's numbers: all of a shard's, and where its own begin. Valid until the table's next
look-up."""


@dataclass(slots=True)
class _Shard:
    """hashes: 0 where a slot is free. tags: 16 bytes a principal, or none. used: slots that are taken."""

    hashes: memoryview
    values: Numbers
    tags: NDArray[np.void] | None
    slots: int
    used: int


class PrincipalTable:
    """Numbers by name.

    columns: numbers a principal, at first 0. is_over: which rows, n x columns, tell nothing any more at a
    time in seconds; a principal without a row is as good as one whose row is over. tagged: whether 16 bytes
    are kept with each.
    Memory:  at most (8 + 8 columns + 16 if tagged) / 0.55 bytes a principal, beside 0.2 MB.
    """

    def __init__(self, columns: int, is_over: Over, *, tagged: bool = False) -> None:
        self._columns, self._is_over, self._tagged = columns, is_over, tagged
        self._salt = secrets.token_hex(16)
        self._shards = [self._make(FEWEST_SLOTS) for _ in range(SHARDS)]
        self._looked, self._swept = 0, 0

    def __len__(self) -> int:
        return sum(shard.used for shard in self._shards)

    def entry(self, name: str, now_s: float, tag: Callable[[str], bytes] | None = None) -> Entry:
        """The row of a name, made if there is none. tag: what is kept with a new one.

        Cost:    0.7 us.
        """
        self._looked += 1
        if self._looked >= SWEEP_EVERY:
            self._sweep(now_s)
        key = hash(self._salt + name) & _ALL or 1
        shard = self._shards[key & (SHARDS - 1)]
        slot, hashes = key * shard.slots >> _BITS, shard.hashes
        while found := hashes[slot]:
            if found == key:
                return shard.values, slot * self._columns
            slot += 1
        return self._add(shard, key, slot, now_s, name, tag)

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """Every tag with its entry. Only of a table that is tagged, and without a look-up meanwhile."""
        for shard in self._shards:
            for slot in np.flatnonzero(np.asarray(shard.hashes)).tolist():
                yield shard.tags[slot].tobytes(), (shard.values, slot * self._columns)  # type: ignore[index]

    def content(self) -> tuple[NDArray[np.void], NDArray[np.float64]]:
        """All tags, and their numbers, n x columns: copies. Only of a table that is tagged."""
        tags, values = [np.zeros(0, f"V{TAG_BYTES}")], [np.zeros((0, self._columns))]
        for shard in self._shards:
            taken = np.flatnonzero(np.asarray(shard.hashes))
            values.append(np.asarray(shard.values).reshape(-1, self._columns)[taken])
            tags.append(shard.tags[taken])  # type: ignore[index]
        return np.concatenate(tags), np.concatenate(values)

    def bytes_held(self) -> int:
        """The size of all arrays."""
        tags = sum(shard.tags.nbytes for shard in self._shards if shard.tags is not None)
        return tags + sum(shard.hashes.nbytes + shard.values.nbytes for shard in self._shards)

    def _add(
        self, shard: _Shard, key: int, slot: int, now_s: float, name: str, tag: Callable[[str], bytes] | None
    ) -> Entry:
        if shard.used >= FULL * shard.slots or slot == len(shard.hashes) - 1:  # the last one stays free
            self._rebuild(shard, now_s)
            slot = key * shard.slots >> _BITS
            while shard.hashes[slot]:
                slot += 1
        shard.hashes[slot] = key
        shard.used += 1
        if shard.tags is not None and tag is not None:
            shard.tags[slot] = np.void(tag(name))
        return shard.values, slot * self._columns

    def _sweep(self, now_s: float) -> None:
        self._looked = 0
        shard = self._shards[self._swept]
        if shard.used:
            self._rebuild(shard, now_s)
        self._swept = (self._swept + 1) % SHARDS

    def _rebuild(self, shard: _Shard, now_s: float) -> None:
        """Makes a shard anew with half of its slots free, without what is over.

        In the order of their hashes every key has its slot, or the one after its predecessor's.
        """
        hashes, values = np.asarray(shard.hashes), np.asarray(shard.values).reshape(-1, self._columns)
        taken = np.flatnonzero(hashes)
        kept = taken[~self._is_over(values[taken], now_s)]
        kept = kept[np.argsort(hashes[kept])]
        slots = max(FEWEST_SLOTS, int(kept.size / AFTER_GROWTH) + 1)
        home = np.fromiter((key * slots >> _BITS for key in hashes[kept].tolist()), np.int64, kept.size)
        order = np.arange(kept.size)
        places = np.maximum.accumulate(home - order) + order
        new = self._make(slots, int(places[-1]) + 1 if kept.size else 0)
        np.asarray(new.hashes)[places] = hashes[kept]
        np.asarray(new.values).reshape(-1, self._columns)[places] = values[kept]
        if new.tags is not None and shard.tags is not None:
            new.tags[places] = shard.tags[kept]
        shard.hashes, shard.values, shard.tags = new.hashes, new.values, new.tags
        shard.slots, shard.used = slots, kept.size

    def _make(self, slots: int, reached: int = 0) -> _Shard:
        """An empty shard. Probes may run past the end: the slots after it are not counted."""
        length = max(slots + FEWEST_SLOTS, reached + FEWEST_SLOTS)
        tags = np.zeros(length, f"V{TAG_BYTES}") if self._tagged else None
        return _Shard(
            np.zeros(length, np.uint64).data,
            numbers(length * self._columns),
            tags,
            slots,
            0,
        )


def numbers(count: int) -> Numbers:
    """So many zeros: a view of an array, which is twice as fast as the array for one number at a time."""
    return cast(Numbers, np.zeros(count).data)
