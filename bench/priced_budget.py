"""What a budget by price costs: bytes a principal, and microseconds a charge, at so many principals.

    python -m bench.priced_budget            # a million
    python -m bench.priced_budget 100000

Times are medians over rounds with random principals, by the process's own CPU time. The rate guard's stand
beside them: another machine, or a busy one, changes both alike.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

from gateway.ledger.leased import LeasedAccounts, Slices
from guards.gcra import Buckets, Limit
from guards.priced import PricedBudget
from guards.rate import RateGuard

LIMIT, MODEL_LIMIT = Limit(1 / 3600, 1e6), Limit(1e6, 1e12)
"""No bucket is full again while this runs, so that no principal is forgotten."""
PRICE_BITS = 9.97
ROUNDS, CALLS = 9, 20_000


def microseconds(call: Callable[[str], object], names: list[str]) -> float:
    """A call, with the loop around it."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        chosen = random.sample(names, min(CALLS, len(names)))
        began_s = time.process_time()
        for name in chosen:
            call(name)
        rounds.append((time.process_time() - began_s) / len(chosen) * 1e6)
    return statistics.median(rounds)


def budget_of(accounts: Buckets | LeasedAccounts, *, two_levels: bool) -> PricedBudget:
    model = MODEL_LIMIT if two_levels else None
    return PricedBudget(accounts, LIMIT, lambda name: PRICE_BITS, time.monotonic, model_limit=model)


def row(title: str, call: Callable[[str, int], object], names: list[str], more: str = "") -> None:
    one = microseconds(lambda name: call(name, 1), names)
    many = microseconds(lambda name: call(name, 32), names)
    print(f"{title:24}{one:10.2f}{many:12.2f}{more}")


def priced_row(title: str, budget: PricedBudget, names: list[str]) -> None:
    longest_s = 0.0
    for name in names:
        began_s = time.perf_counter()
        budget.charge(name, 1)
        longest_s = max(longest_s, time.perf_counter() - began_s)
    settle = microseconds(lambda name: budget.settle(name, PRICE_BITS, 12.0), names)
    accounts = budget.accounts
    assert isinstance(accounts, Buckets | LeasedAccounts)
    bytes_ = accounts.bytes_held() / len(names)
    row(title, budget.charge, names, f"{settle:11.2f}{bytes_:8.0f}{longest_s * 1e3:12.2f}")


def main(size: int) -> None:
    names = [f"caller-{i:07d}" for i in range(size)]
    print(f"{'':24}{'1 row us':>10}{'32 rows us':>12}{'settle us':>11}{'bytes':>8}{'longest ms':>12}")
    rate = RateGuard(LIMIT.per_s, LIMIT.burst, time.monotonic)
    for name in names:
        rate.charge(name, 1)
    row("guards/rate.py", rate.charge, names)
    priced_row("buckets", budget_of(Buckets(), two_levels=False), names)
    priced_row("buckets and the model", budget_of(Buckets(), two_levels=True), names)
    leased = LeasedAccounts("bench", Slices(of_burst=0.5, initial_of_burst=0.5, share=1.0))
    priced_row("leased, and the model", budget_of(leased, two_levels=True), names)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
