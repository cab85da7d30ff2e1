"""A budget of information: each row of a principal is charged its price, before it is judged.

    budget = PricedBudget(Buckets(), Limit(per_s=2, burst=5000), prices_of=lambda principal: 9.97,
                          clock=time.monotonic, model_limit=Limit(50, 100_000))
    scores = budget.charge("ada", rows=3)       # under 1: admitted, and charged
    budget.settle("ada", charged=3 * 9.97, price=31.2)   # once the rows have ended: what they cost in the end

Two levels: the bucket of the principal, and one of the model that all principals who are not trusted share,
so that more names give no more bits. A row is charged to both or to neither.

    | row                             | principal's bucket                 | model's bucket   |
    |---------------------------------|------------------------------------|------------------|
    | admitted                        | its price                          | its price        |
    | over the principal's budget     | its price times `refusal_factor`,  | nothing          |
    |                                 | up to `most_penalty` since the     |                  |
    |                                 | last row that was admitted         |                  |
    | over the model's budget         | nothing: others have spent it      | nothing          |
    | ended (`settle`)                | price in the end - what was charged| the same         |

**No lock-out.** Penalties between two admitted rows add up to at most `most_penalty`. So a bucket from which
nothing else is taken admits a row within `(most_penalty + price) / per_s` seconds, however often it is asked
meanwhile; a caller that waits as told is admitted when it comes back; and of many that do, one is within that
time, so that they get at least `price / (price + most_penalty)` of the rate together. Without the bound, two
callers that obey would refuse each other for ever: what each is told leaves out the other's next penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from guards.gcra import OPEN, PENALTY, Accounts, Limit
from guards.principal_table import Entry

SLACK: Final = 1e-3
"""Of a price, against rounding of the clock, as in guards/rate.py."""
BELOW_ONE: Final = math.nextafter(1.0, 0.0)
MODEL: Final = "\0model"
"""The name of the model's bucket: no principal's, which has no control characters."""


@dataclass(slots=True)
class PricedBudget:
    """Implements `Budget` of gateway/core. The policy's cut is `refuse: 1.0`.

    accounts: where the buckets are. limit: of every principal for which `limits` gives None; `per_s` 0
    refuses all rows. prices_of: what a row of a principal costs at admission, in the unit of the limits, >=
    0. model_limit: None for one level. trusted: principals that are not charged to the model.
    refusal_factor >= 1 and most_penalty >= 0: as above, of `limit`; of another limit in proportion to its
    burst. A most_penalty of 0 charges nothing for what the budget itself refuses.
    """

    accounts: Accounts
    limit: Limit
    prices_of: Callable[[str], float]
    clock: Callable[[], float]
    limits: Callable[[str], Limit | None] | None = None
    model_limit: Limit | None = None
    trusted: Callable[[str], bool] | None = None
    refusal_factor: float = 2.0
    most_penalty: float = 0.0
    _model: Entry | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not (1 <= self.refusal_factor < math.inf and 0 <= self.most_penalty < math.inf):
            what = f"refusal_factor is {self.refusal_factor}, most_penalty {self.most_penalty}"
            raise ValueError(f"budget: {what}; expected >= 1 and >= 0")
        if self.model_limit is not None:
            self._model = self.accounts.lone_entry(MODEL, self.model_limit)

    def charge(self, principal: str, rows: int) -> list[float]:
        """Charges rows of one principal, all at the same time; admits as many as both buckets hold.

        Returns: one score a row; below 1 it is admitted. `(score - 1) * limit.tolerance_s` is the wait in
                 seconds until that row alone would be, infinite for a `per_s` of 0. NaN if nothing can tell.
        Raises:  ValueError for a price that is no number of 0 or more; then nothing is charged.
        Cost:    O(rows): 2 us, and 0.1 us a row.
        """
        price, limit, now_s = self.prices_of(principal), self.limit_of(principal), self.clock()
        if not 0 <= price < math.inf:  # NaN too
            raise ValueError(f"budget: a row of {principal!r} costs {price}; expected 0 or more")
        if limit.per_s == 0:
            return [math.inf] * rows
        if price > limit.burst:
            limit = Limit(limit.per_s, price)  # a bucket holds one row of its caller: else it never passes
        accounts = self.accounts
        own = accounts.entry(principal, now_s)
        left = accounts.available(own, limit, now_s)
        fits = admitted = _affordable(left, price, rows)
        shared = self._shared(principal)
        if shared is not None and admitted:
            shared_limit = self._shared_limit(price)
            admitted = _affordable(accounts.available(shared, shared_limit, now_s), price, admitted)
            if admitted:
                self._take(shared, MODEL, admitted * price, shared_limit, now_s)
        if admitted:
            self._take(own, principal, admitted * price, limit, now_s)
            scores = _within(left, price, admitted, limit.burst)
        else:
            scores = []
        if admitted < rows:
            refused = rows - admitted
            if shared is None or admitted == fits:
                self._penalise(own, principal, price, refused, limit, now_s)
                wait_s = accounts.wait_s(own, principal, price, limit, now_s)
            else:
                wait_s = accounts.wait_s(shared, MODEL, price, shared_limit, now_s)
            scores += [1.0 + wait_s / self.limit.tolerance_s if wait_s else 1.0] * refused
        return scores

    def settle(self, principal: str, charged: float, price: float) -> None:
        """Adjusts what rows of a principal cost, once it is known. Never gives back more than was charged.

        Args:    charged: what `charge` took for these rows; price: what they cost in the end. Sums over rows.
                 A row that was admitted and is never settled keeps its price.
        Raises:  ValueError for what is no number of 0 or more; then nothing is changed.
        Cost:    2 us.
        """
        if not (0 <= charged < math.inf and 0 <= price < math.inf):  # NaN too
            raise ValueError(f"budget: charged {charged}, and {price} in the end; expected 0 or more")
        limit, now_s = self.limit_of(principal), self.clock()
        if limit.per_s == 0:
            return
        own = self.accounts.entry(principal, now_s)
        self._adjust(own, principal, charged, price, limit, now_s)
        if (shared := self._shared(principal)) is not None:
            self._adjust(shared, MODEL, charged, price, self._shared_limit(0.0), now_s)

    def limit_of(self, principal: str) -> Limit:
        """The limit of a principal's own bucket."""
        return (self.limits(principal) if self.limits else None) or self.limit

    def _shared(self, principal: str) -> Entry | None:
        """The model's bucket, if the principal's rows are charged to it."""
        return None if self._model is None or (self.trusted and self.trusted(principal)) else self._model

    def _shared_limit(self, price: float) -> Limit:
        assert self.model_limit is not None
        return self.model_limit if price <= self.model_limit.burst else Limit(self.model_limit.per_s, price)

    def _take(self, entry: Entry, name: str, units: float, limit: Limit, now_s: float) -> None:
        if not units:
            return  # free rows end no row of penalties
        values, at = entry
        values[at + OPEN] += units
        values[at + PENALTY] = 0.0
        self.accounts.spend(entry, name, units, limit, now_s)

    def _penalise(self, entry: Entry, name: str, price: float, rows: int, limit: Limit, now_s: float) -> None:
        """Charges for refused rows, up to the bound, if it is the caller's own doing."""
        if not self.most_penalty or not self.accounts.is_early(entry, price, limit, now_s):
            return
        values, at = entry[0], entry[1] + PENALTY
        most = self.most_penalty
        if self.limits is not None:
            most *= self.limit_of(name).burst / self.limit.burst
        penalty = min(self.refusal_factor * price * rows, most - values[at])
        if penalty > 0:
            values[at] += penalty
            self.accounts.spend(entry, name, penalty, limit, now_s)

    def _adjust(
        self, entry: Entry, name: str, charged: float, price: float, limit: Limit, now_s: float
    ) -> None:
        values, at = entry[0], entry[1] + OPEN
        not_ended = values[at]
        values[at] = max(not_ended - charged, 0.0)
        if more := max(price - charged, -not_ended):
            self.accounts.spend(entry, name, more, limit, now_s)


def _affordable(left: float, price: float, rows: int) -> int:
    """How many of the rows are within what is left; all that are free."""
    if left >= price * rows or not price:  # also where nothing is limited
        return rows
    return max(0, int((left + SLACK * price) / price))


def _within(left: float, price: float, rows: int, burst: float) -> list[float]:
    """The scores of admitted rows: the part of the bucket that is spent after each, below 1."""
    if burst == math.inf:
        return [0.0] * rows
    scores = [1.0 - (left - row * price) / burst for row in range(1, rows + 1)]
    if scores[-1] >= 1.0:  # the last one that a bucket holds, or a free one
        scores = [min(score, BELOW_ONE) for score in scores]
    return scores
