"""A replica in a process of its own that admits all it can of one principal, and says how much so far.

python -m tests.ledger.spender URL ON_ERROR
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from gateway.ledger.leased import LeasedAccounts, Slices
from gateway.ledger.open_ledger import open_ledger
from gateway.ledger.refill import Refill
from guards.gcra import Limit
from guards.priced import PricedBudget

LIMIT = Limit(200, 1000)
REPLICAS = 3
SLICES = Slices(of_burst=0.1, initial_of_burst=0.02, share=1 / REPLICAS)


async def main(url: str, on_error: str) -> None:
    """Each number is written before the rows it counts could be answered."""
    accounts = LeasedAccounts("test", SLICES, "allow" if on_error == "allow" else "refuse")
    budget = PricedBudget(accounts, LIMIT, lambda name: 1.0, time.monotonic)
    refill = asyncio.create_task(Refill(accounts, open_ledger(url, Path())).run())
    admitted = 0
    while not refill.done():
        admitted += sum(score < 1 for score in budget.charge("a", 10))
        sys.stdout.write(f"{admitted}\n")
        sys.stdout.flush()
        await asyncio.sleep(0.005)
    await refill


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
