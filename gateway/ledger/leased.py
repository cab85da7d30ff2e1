"""A replica's part of the buckets that all replicas share: what it has leased, spent without asking anyone.

**Overshoot.** Let a bucket hold B units, fill at r a second, and be used by R lives of replicas, of which A
ran at once at most (a replica that is restarted begins a new life); a slice has s units, an initial slice i,
and R i <= B. In any interval of l seconds, whichever replicas and ledgers are killed in it, all replicas
together admit at most

    B + r l + A s + R i + f

units at their admission prices, less what was refunded: s for what each held when it began, i for what a life
may spend of a bucket before the ledger has heard of it. i is charged to the bucket afterwards, unless the
replica is killed first, so that without kills the long-run rate is r. f is what rows in flight cost beyond
their admission price (`Prices.most_beyond_admission` for each): it overdraws the bucket and delays the next
rows. A slice is one row of the caller at least.

    | what is lost                            | what it costs                                           |
    |-----------------------------------------|---------------------------------------------------------|
    | a replica                               | i, and what it admitted of its share since the ledger   |
    |                                         | was gone: r * share a second                            |
    | the ledger, with what it knew           | nothing: buckets begin empty (`ledger.py`)              |
    | a reply                                 | nothing: the slice in it is charged and never spent     |

While the ledger does not answer, a replica spends what it has. Then `on_error` says what it does: `allow`
goes on with its share of the rate (r * share, without a burst; the sum of all shares is r) and charges that
to the ledger when it is back; `refuse` admits nothing more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.ledger.ledger import Want
from guards.gcra import Limit
from guards.principal_table import TAG_BYTES, Entry, PrincipalTable, numbers

REFILL_S: Final = 0.1
"""How long a refill takes at most where all is well: what a caller waits at least, and in addition."""
LEFT, CREDIT, EMPTY_AT, USED, PERIOD, TOLERANCE = 2, 3, 4, 5, 6, 7
"""Columns: units leased and not spent, negative if owed; how far they may go below 0; when the bucket was or
will be empty, 0 if it gave all that was asked; last use; the limit's period and tolerance, in seconds."""
COLUMNS: Final = 8


@dataclass(frozen=True, slots=True)
class Slices:
    """How much a replica holds of each bucket.

    of_burst: a slice, as a part of a full bucket; with R replicas 1 / (2 R) doubles no burst.
    initial_of_burst: what may be spent before the first lease. share: of the rate, while the ledger is
    gone: 1 / R.
    Raises:  ValueError for what is not between 0 and 1.
    """

    of_burst: float
    initial_of_burst: float
    share: float

    def __post_init__(self) -> None:
        if not (0 < self.of_burst <= 1 and 0 <= self.initial_of_burst <= 1 and 0 <= self.share <= 1):
            raise ValueError(f"slices: {self}; expected numbers of at most 1, and a slice above 0")


class Need(NamedTuple):
    """A bucket of which more is to be leased. units: at least, beside what is owed."""

    name: str
    limit: Limit
    units: float


class LeasedAccounts:
    """Implements `Accounts` of guards/gcra.py. Everything runs on one event loop; `refill.py` talks to the
    ledger.

    scope: names the budget; budgets of different scopes share no bucket. The ledger gets 128-bit hashes of
    names only. on_error: as above. unreachable_since_s: when the first call began that the ledger did not
    answer, by the clock of `charge`; None while it answers. on_need: is called when something is to be
    leased.
    Memory:  at most 170 bytes a principal, until it was idle for as long as its bucket takes to fill.
    """

    def __init__(self, scope: str, slices: Slices, on_error: Literal["allow", "refuse"] = "refuse") -> None:
        self.slices, self.on_error = slices, on_error
        self.unreachable_since_s: float | None = None
        self.on_need: Callable[[], None] = lambda: None
        self.needs: dict[str, Need] = {}
        self.table = PrincipalTable(COLUMNS, _is_idle, tagged=True)
        self.lone: dict[str, Entry] = {}
        self._scope = hashlib.blake2b(scope.encode(), digest_size=64).digest()

    def __len__(self) -> int:
        return len(self.table)

    def bytes_held(self) -> int:
        return self.table.bytes_held()

    def key_of(self, name: str) -> bytes:
        """The ledger's key of a bucket. Keyed by the scope, which is no secret."""
        return hashlib.blake2b(name.encode(), digest_size=TAG_BYTES, key=self._scope).digest()

    def slice(self, limit: Limit) -> float:
        return self.slices.of_burst * limit.burst

    def entry(self, name: str, now_s: float) -> Entry:
        return self.lone.get(name) or self.table.entry(name, now_s, self.key_of)

    def lone_entry(self, name: str, limit: Limit) -> Entry:
        return self.lone.setdefault(name, (numbers(COLUMNS), 0))

    def available(self, entry: Entry, limit: Limit, now_s: float) -> float:
        """As `Accounts`: what is here. Without the ledger, also what has accrued of this replica's share."""
        if is_unlimited(limit):
            return math.inf
        values, at = entry
        if values[at + TOLERANCE] != limit.tolerance_s or values[at + PERIOD] != limit.period_s:
            if not values[at + PERIOD]:  # a new one
                values[at + CREDIT] = self.slices.initial_of_burst * limit.burst
            values[at + PERIOD], values[at + TOLERANCE] = limit.period_s, limit.tolerance_s
            values[at + EMPTY_AT] = 0.0  # what is known of a bucket is of its limit before
        elif self.unreachable_since_s is not None and self.on_error == "allow":
            self._accrue(entry, limit, now_s, self.unreachable_since_s)
        values[at + USED] = now_s
        left: float = values[at + LEFT] + values[at + CREDIT]
        return left

    def spend(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> None:
        if is_unlimited(limit):
            return
        values, at = entry
        left = values[at + LEFT] - units
        values[at + LEFT] = left
        slice_ = self.slice(limit)
        low = left < slice_ / 2 and (left < 0 or values[at + EMPTY_AT] <= now_s)
        if (low or left > slice_) and name not in self.needs:
            self._need(Need(name, limit, 0.0))

    def wait_s(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> float:
        """As `Accounts`; NaN where the ledger is gone and `on_error` is `refuse`."""
        values, at = entry
        missing = units - values[at + LEFT] - values[at + CREDIT]
        self._need(Need(name, limit, units))
        if self.unreachable_since_s is None:
            if empty_at_s := values[at + EMPTY_AT]:
                return max(0.0, empty_at_s + missing * limit.period_s - now_s) + REFILL_S
            return REFILL_S
        if self.on_error == "refuse" or not self.slices.share:
            return math.nan
        return max(values[at + EMPTY_AT] - now_s, 0.0) + missing * limit.period_s / self.slices.share

    def is_early(self, entry: Entry, units: float, limit: Limit, now_s: float) -> bool:
        values, at = entry
        empty_at_s, missing = values[at + EMPTY_AT], units - values[at + LEFT] - values[at + CREDIT]
        known = self.unreachable_since_s is None and empty_at_s > 0
        return known and now_s < empty_at_s + missing * limit.period_s

    def held(self, name: str, now_s: float) -> float:
        """Units of a bucket that are leased here and not spent; negative if they are owed."""
        values, at = self.entry(name, now_s)
        left: float = values[at + LEFT]
        return left

    def glance(self, name: str, limit: Limit) -> Want:
        """Asks how much a bucket holds at the ledger, and for nothing of it."""
        return Want(self.key_of(name), 0.0, 0.0, limit.period_s, limit.tolerance_s)

    def leftovers(self) -> list[Want]:
        """What is leased and not spent, to be given back: it is gone from here. Cost: 2 us a principal."""
        wants: list[Want] = []
        lone = [(self.key_of(name), entry) for name, entry in self.lone.items()]
        for key, (values, at) in (*self.table.entries(), *lone):
            if (left := values[at + LEFT]) > 0 and values[at + PERIOD]:
                wants.append(Want(key, 0.0, -left, values[at + PERIOD], values[at + TOLERANCE]))
                values[at + LEFT] = 0.0
        return wants

    def _need(self, need: Need) -> None:
        before = self.needs.get(need.name)
        if before is None or before.units < need.units:
            self.needs[need.name] = need
            self.on_need()

    def _accrue(self, entry: Entry, limit: Limit, now_s: float, gone_s: float) -> None:
        """Adds this replica's share of what has come into the bucket since its last use, up to a slice."""
        values, at = entry
        passed_s = now_s - max(values[at + USED], values[at + EMPTY_AT], gone_s)
        room = self.slice(limit) - values[at + LEFT] - values[at + CREDIT]
        if passed_s > 0 and room > 0:
            values[at + CREDIT] += min(passed_s * limit.per_s * self.slices.share, room)


def is_unlimited(limit: Limit) -> bool:
    return limit.per_s == math.inf or limit.burst == math.inf


def _is_idle(values: NDArray[np.float64], now_s: float) -> NDArray[np.bool_]:
    """Those that owe nothing, and whose bucket must be full since they were used last."""
    limit_s = values[:, TOLERANCE]
    idle = np.maximum(values[:, USED], values[:, EMPTY_AT]) + limit_s <= now_s
    return np.asarray(idle & (values[:, LEFT] >= 0))
