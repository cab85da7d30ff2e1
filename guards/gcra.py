"""Buckets by the generic cell rate algorithm with a price: `tat' = max(now, tat) + price * T`.

One float a principal: the theoretical arrival time (tat), in seconds, at which all that was charged will be
paid off. T = 1 / `per_s`. Units are bits where information is priced, and rows where rows are counted.

Source:  ITU-T I.371, annex A. Deviation: what a cell costs is given with it, so that `tat - T` is not an
         arrival; the limit holds for the sum of prices. With a price of 1 it is `guards/rate.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from guards.principal_table import Entry, PrincipalTable, numbers

OPEN, PENALTY = 0, 1
"""Columns of every entry: what was charged for rows that have not ended, and for refusals since the last row
that passed. They are kept by `PricedBudget`."""
TAT: Final = 2


@dataclass(frozen=True, slots=True)
class Limit:
    """per_s >= 0: units a second; burst > 0: units that a full bucket holds. Both may be infinite.

    Raises:  ValueError for others, NaN too.
    """

    per_s: float
    burst: float
    period_s: float = field(init=False, compare=False)
    tolerance_s: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.per_s >= 0 and self.burst > 0):  # NaN too
            raise ValueError(f"limit: per_s is {self.per_s}, burst {self.burst}; expected >= 0 and > 0")
        object.__setattr__(self, "period_s", 1 / self.per_s if self.per_s else math.inf)
        object.__setattr__(self, "tolerance_s", self.burst * self.period_s if self.per_s < math.inf else 0.0)


class Accounts(Protocol):
    """Where the buckets of principals are. Nothing here waits. Times are seconds of one monotonic clock."""

    def entry(self, name: str, now_s: float) -> Entry:
        """The numbers of a principal, of which the first two are the caller's. Valid until the next call."""
        ...

    def lone_entry(self, name: str, limit: Limit) -> Entry:
        """An entry that stays valid, for a bucket that many principals share; the same one each time."""
        ...

    def available(self, entry: Entry, limit: Limit, now_s: float) -> float:
        """Units that may be spent now; negative if it is overdrawn."""
        ...

    def spend(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> None:
        """Takes units, whether they are there or not; gives back if negative, up to a full bucket."""
        ...

    def wait_s(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> float:
        """Seconds until so many units are available, if nothing else is spent; NaN if nothing can tell."""
        ...

    def is_early(self, entry: Entry, units: float, limit: Limit, now_s: float) -> bool:
        """Whether the bucket is known to hold less than so many units: the caller has not waited as told."""
        ...


class Buckets:
    """Accounts in this process alone. A bucket that is full again is forgotten."""

    def __init__(self) -> None:
        self._table = PrincipalTable(3, _is_full)
        self._lone: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._table)

    def bytes_held(self) -> int:
        return self._table.bytes_held()

    def entry(self, name: str, now_s: float) -> Entry:
        return self._table.entry(name, now_s)

    def lone_entry(self, name: str, limit: Limit) -> Entry:
        return self._lone.setdefault(name, (numbers(3), 0))

    def available(self, entry: Entry, limit: Limit, now_s: float) -> float:
        owed_s: float = entry[0][entry[1] + TAT] - now_s
        return limit.burst - owed_s * limit.per_s if owed_s > 0 else limit.burst

    def spend(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> None:
        values, at = entry
        values[at + TAT] = advanced(values[at + TAT], now_s, units, limit)

    def wait_s(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> float:
        return max(0.0, units - self.available(entry, limit, now_s)) * limit.period_s

    def is_early(self, entry: Entry, units: float, limit: Limit, now_s: float) -> bool:
        return True


def advanced(tat_s: float, now_s: float, units: float, limit: Limit) -> float:
    """The theoretical arrival time after so many units; after a refund not before now. Not of `per_s` 0."""
    return max(max(tat_s, now_s) + units * limit.period_s, now_s)


def _is_full(values: NDArray[np.float64], now_s: float) -> NDArray[np.bool_]:
    return np.asarray(values[:, TAT] <= now_s)
