"""Leases more of what runs low, in the background: one batch at a time, for all keys together.

A batch that is not answered is sent again under its number until it is, so that what is owed reaches the
ledger once. What a caller waits for that was refused is leased when the bucket holds it again, before the
caller comes back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from typing import Final

from gateway.ledger.leased import (
    CREDIT,
    EMPTY_AT,
    LEFT,
    PERIOD,
    REFILL_S,
    TOLERANCE,
    USED,
    LeasedAccounts,
    Need,
)
from gateway.ledger.ledger import MOST_WANTS, Batch, Grant, Ledger, Want
from guards.principal_table import TAG_BYTES, Entry

PAUSE_S: Final = REFILL_S / 4
"""Between two batches: needs that arise meanwhile share the next one."""
HEARTBEAT_S: Final = 1.0
"""An empty batch is sent after so long: whether the ledger is there is known before it is needed."""
ANSWER_WITHIN_S: Final = 2.0
RETRY_S: Final = 0.25
EXHAUSTED: Final = 1e-9
"""A bucket that holds less of its burst is empty: else rounding."""
log = logging.getLogger(__name__)


class Refill:
    """Fills one replica's accounts from a ledger. Times are of the clock of `charge`."""

    def __init__(
        self, accounts: LeasedAccounts, ledger: Ledger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts, self._ledger, self._clock = accounts, ledger, clock
        self._replica, self._number = secrets.token_bytes(TAG_BYTES), 0
        self._flight: tuple[Batch, list[Need]] | None = None
        self._later: list[tuple[float, str, Need]] = []
        self._later_names: set[str] = set()

    async def run(self) -> None:
        """Until cancelled. Logs when the ledger goes and comes back; raises nothing of it."""
        wake, asked_s = asyncio.Event(), -HEARTBEAT_S
        self._accounts.on_need = wake.set
        while True:
            now_s = self._clock()
            wake.clear()
            is_due = now_s - asked_s >= HEARTBEAT_S
            asked_s = now_s if is_due else asked_s
            if (is_due or self._has_need(now_s)) and not await self.ask(even_empty=is_due):
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(PAUSE_S)
            wait_s = min([HEARTBEAT_S, *(due_s - self._clock() for due_s, _, _ in self._later[:1])])
            if not self._has_need(self._clock()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, wait_s)):  # `wait_for` may swallow a cancellation
                        await wake.wait()

    async def ask(self, *, even_empty: bool = True) -> bool:
        """Sends one batch: whether it was answered. Sets `unreachable_since_s` otherwise."""
        began_s = self._clock()
        batch = self._next_batch(began_s)
        if not batch.wants and not even_empty:
            self._flight = None
            return True
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self._answered(await self._ledger.lease(batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, the ledger has not answered
            if self._accounts.unreachable_since_s is None:
                self._accounts.unreachable_since_s = began_s
                log.error("the ledger of budgets does not answer (%s)", type(error).__name__)
            return False
        if self._accounts.unreachable_since_s is not None:
            self._accounts.unreachable_since_s = None
            log.warning("the ledger of budgets answers again")
        return True

    async def give_back(self) -> None:
        """Settles what is owed and gives back what is not spent. For the end of a replica, after `run`.

        Stops at the first batch that is not answered: then the rest stays charged.
        """
        if self._flight is not None and not await self.ask():
            return
        while self._accounts.needs:
            if not await self.ask():
                return
        wants = self._accounts.leftovers()
        for first in range(0, len(wants), MOST_WANTS):
            self._send(wants[first : first + MOST_WANTS], [])
            if not await self.ask():
                return

    def _has_need(self, now_s: float) -> bool:
        due = bool(self._later) and self._later[0][0] <= now_s
        return due or self._flight is not None or bool(self._accounts.needs)

    def _next_batch(self, now_s: float) -> Batch:
        """The one that is under way, else a new one, which may be empty."""
        if self._flight is not None:
            return self._flight[0]
        needs = self._accounts.needs
        while self._later and self._later[0][0] <= now_s:
            _, name, need = heappop(self._later)
            self._later_names.discard(name)
            needs.setdefault(name, need)
        taken: list[Need] = []
        wants: list[Want] = []
        while needs and len(wants) < MOST_WANTS:
            _, need = needs.popitem()
            if (want := self._want(need, now_s)) is not None:
                taken.append(need)
                wants.append(want)
        return self._send(wants, taken)

    def _send(self, wants: list[Want], needs: list[Need]) -> Batch:
        self._number += 1
        batch = Batch(self._replica, self._number, tuple(wants))
        self._flight = batch, needs
        return batch

    def _want(self, need: Need, now_s: float) -> Want | None:
        """What is asked for; None if nothing is. What is above a slice is given back, and gone from here."""
        name, limit, units = need
        values, at = self._accounts.entry(name, now_s)
        left, slice_ = values[at + LEFT], max(self._accounts.slice(limit), units)
        owed, asked = max(-left, 0.0), 0.0
        if left > slice_:
            owed = slice_ - left
            values[at + LEFT] = slice_
        elif left < max(units, slice_ / 2) and now_s >= _due_s(values[at + EMPTY_AT], left, need, slice_):
            asked = slice_ - max(left, 0.0)
        if not owed and not asked:
            self._ask_later(need, entry=(values, at))
            return None
        return Want(self._accounts.key_of(name), asked, owed, limit.period_s, limit.tolerance_s)

    def _answered(self, grants: list[Grant]) -> None:
        """Takes over the answer to the batch under way. Raises ValueError unless there is one a want."""
        assert self._flight is not None
        (batch, needs), now_s = self._flight, self._clock()
        if len(grants) != len(batch.wants):
            raise ValueError(f"{len(grants)} grants for {len(batch.wants)} wants")
        self._flight = None
        for want, need, grant in zip(batch.wants, needs, grants, strict=False):  # leftovers have no needs
            self._credit(want, need, grant, now_s)

    def _credit(self, want: Want, need: Need, grant: Grant, now_s: float) -> None:
        values, at = self._accounts.entry(need.name, now_s)
        values[at + LEFT] += max(want.owed, 0.0) + grant.units
        values[at + CREDIT] = 0.0
        values[at + PERIOD], values[at + TOLERANCE] = want.period_s, want.tolerance_s
        values[at + USED] = max(values[at + USED], now_s)
        is_empty = grant.left * want.period_s <= EXHAUSTED * want.tolerance_s
        values[at + EMPTY_AT] = now_s + max(-grant.left, 0.0) * want.period_s if is_empty else 0.0
        if grant.units < want.units and not is_empty:  # the reply that had them was lost
            self._accounts.needs.setdefault(need.name, need)
        self._ask_later(need, entry=(values, at))

    def _ask_later(self, need: Need, entry: Entry) -> None:
        """If a caller waits for more than is here: when the bucket will hold it, or at once."""
        values, at = entry
        left = values[at + LEFT]
        if need.units <= left or need.name in self._later_names:
            return
        due_s = _due_s(values[at + EMPTY_AT], left, need, 0.0)
        heappush(self._later, (due_s, need.name, need))
        self._later_names.add(need.name)


def _due_s(empty_at_s: float, left: float, need: Need, slice_: float) -> float:
    """When a bucket that was empty then holds what is needed, else half a slice; 0 for one that is not."""
    missing = (need.units or slice_ / 2) - left
    return empty_at_s + max(missing, 0.0) * need.limit.period_s if empty_at_s else 0.0
