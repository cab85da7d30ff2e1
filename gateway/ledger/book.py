"""The book of a ledger that is a process: one theoretical arrival time a key, and each replica's last
batch."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.ledger import Batch, Grant, Want
from guards.principal_table import Entry, PrincipalTable

MOST_REPLICAS: Final = 4096


class Book:
    """Buckets by key. floor_s: when every bucket was empty at the latest; minus infinity if nothing is lost.

    Times are seconds of the ledger's own clock, which never goes back (`journal.py`).
    Memory: at most 60 bytes a key whose bucket is not full.
    """

    def __init__(self, floor_s: float = -math.inf) -> None:
        self.floor_s = floor_s
        self._table = PrincipalTable(1, _is_full, tagged=True)
        self._numbers: OrderedDict[bytes, int] = OrderedDict()

    def lease(self, batch: Batch, now_s: float) -> tuple[list[Grant], list[tuple[bytes, float]]]:
        """The grants, and what has changed: keys and their new times.

        Raises:  ValueError for a want that is no number; then nothing is charged.
        Cost:    3 us a want.
        """
        _check(batch)
        again = batch.number <= self._numbers.get(batch.replica, 0)
        changed: list[tuple[bytes, float]] = []
        grants = [self._grant(want, now_s, again, changed) for want in batch.wants]
        self.note(batch.replica, batch.number)
        return grants, changed

    def note(self, replica: bytes, number: int) -> None:
        """That a replica's batches up to this one are done."""
        self._numbers[replica] = max(number, self._numbers.get(replica, 0))
        self._numbers.move_to_end(replica)
        while len(self._numbers) > MOST_REPLICAS:
            self._numbers.popitem(last=False)

    def put(self, tats: Iterable[tuple[bytes, float]], now_s: float) -> None:
        """Takes over times that were written down."""
        for key, tat_s in tats:
            values, at = self._entry(key, now_s)
            values[at] = tat_s

    def content(self) -> tuple[NDArray[np.void], NDArray[np.float64], dict[bytes, int]]:
        """Keys, their times, and the last number of each replica: copies."""
        keys, values = self._table.content()
        return keys, values[:, 0], dict(self._numbers)

    def __len__(self) -> int:
        return len(self._table)

    def bytes_held(self) -> int:
        return self._table.bytes_held()

    def _entry(self, key: bytes, now_s: float) -> Entry:
        return self._table.entry(key.decode("latin-1"), now_s, _key_of)

    def _grant(self, want: Want, now_s: float, again: bool, changed: list[tuple[bytes, float]]) -> Grant:
        values, at = self._entry(want.key, now_s)
        tat_s, granted = max(values[at], now_s, self.floor_s + want.tolerance_s), 0.0
        if not again:
            tat_s = max(tat_s + want.owed * want.period_s, now_s)
            granted = min(want.units, max(0.0, now_s + want.tolerance_s - tat_s) / want.period_s)
            tat_s += granted * want.period_s
            values[at] = tat_s
            changed.append((want.key, tat_s))
        return Grant(granted, (now_s + want.tolerance_s - tat_s) / want.period_s)


def _check(batch: Batch) -> None:
    """Else one replica's mistake would overdraw a bucket for ever, or fill it."""
    for want in batch.wants:
        numbers = (want.units >= 0, want.period_s > 0, want.tolerance_s > 0)  # NaN is none of these
        if not (all(numbers) and all(map(math.isfinite, want[1:]))):
            raise ValueError(f"ledger: {want[1:]} are no units, owed, period and tolerance")


def _is_full(values: NDArray[np.float64], now_s: float) -> NDArray[np.bool_]:
    return np.asarray(values[:, 0] <= now_s)


def _key_of(name: str) -> bytes:
    return name.encode("latin-1")
