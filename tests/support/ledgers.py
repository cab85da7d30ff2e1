"""A ledger's book in the test's own process and time, which can be gone, lose replies, or forget
everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.ledger.book import Book
from gateway.ledger.leased import LeasedAccounts, Slices
from gateway.ledger.ledger import Batch, Grant
from gateway.ledger.refill import Refill
from guards.gcra import Limit
from guards.priced import PricedBudget


class BookLedger:
    """calls: batches that arrived."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.book = clock, Book()
        self.is_gone = self.loses_replies = False
        self.calls: list[Batch] = []

    async def lease(self, batch: Batch) -> list[Grant]:
        if self.is_gone:
            raise ConnectionError("gone")
        self.calls.append(batch)
        grants, _ = self.book.lease(batch, self.clock())
        if self.loses_replies:
            raise ConnectionError("the reply was lost")
        return grants

    def forget(self) -> None:
        """Starts anew, with nothing of what it knew."""
        self.book = Book(self.clock())

    async def close(self) -> None:
        """Nothing to let go of."""


class Replica:
    """A priced budget on leased accounts; `ask` sends a batch when the test says so."""

    def __init__(
        self, ledger: BookLedger, limit: Limit, slices: Slices, price: float = 1.0, **other: object
    ) -> None:
        on_error = other.pop("on_error", "refuse")
        self.accounts = LeasedAccounts("scope", slices, on_error)  # type: ignore[arg-type]
        self.refill = Refill(self.accounts, ledger, ledger.clock)
        self.price, self.limit = price, limit
        self.budget = PricedBudget(
            self.accounts,
            limit,
            lambda name: self.price,
            ledger.clock,
            **other,  # type: ignore[arg-type]
        )

    def passes(self, rows: int, name: str = "a") -> int:
        return sum(score < 1 for score in self.budget.charge(name, rows))

    def wait_s(self, name: str = "a") -> float:
        return (self.budget.charge(name, 1)[0] - 1) * self.limit.tolerance_s

    def ask(self) -> bool:
        return asyncio.run(self.refill.ask())
