"""Whatever happens to replicas, replies and the ledger: no interval admits more than is stated."""

from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.ledger.leased import Slices
from guards.gcra import Limit
from tests.guards.test_rate import Clock
from tests.support.ledgers import BookLedger, Replica

LIMIT, REPLICAS = Limit(10, 120), 3
SLICES = Slices(of_burst=0.25, initial_of_burst=0.05, share=1 / REPLICAS)
SLICE, INITIAL = 30.0, 6.0
WHICH = st.integers(0, REPLICAS - 1)


class Overshoot(RuleBasedStateMachine):
    """One principal, several replicas. net: units admitted, less what was refunded, with their times."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(100.0)
        self.ledger = BookLedger(self.clock)
        self.lives, self.never_reported = 0, 0.0
        self.spent, self.lowest, self.worst = 0.0, 0.0, 0.0

    @initialize(on_error=st.sampled_from(["allow", "refuse"]), price=st.sampled_from([0.5, 3.0, 29.0]))
    def begin(self, on_error: str, price: float) -> None:
        self.on_error, self.price = on_error, price
        self.replicas = [self.start() for _ in range(REPLICAS)]
        self.lowest = -LIMIT.per_s * self.clock.now

    def start(self) -> Replica:
        self.lives += 1
        fields = {"on_error": self.on_error, "most_penalty": 20.0}
        return Replica(self.ledger, LIMIT, SLICES, self.price, **fields)

    def add(self, units: float) -> None:
        """Kept: the largest sum over an interval, less the rate times its length."""
        self.lowest = min(self.lowest, self.spent - LIMIT.per_s * self.clock.now)
        self.spent += units
        self.worst = max(self.worst, self.spent - LIMIT.per_s * self.clock.now - self.lowest)

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(which=WHICH, rows=st.integers(1, 60))
    def charge(self, which: int, rows: int) -> None:
        self.add(self.replicas[which].passes(rows) * self.price)

    @rule(which=WHICH, rows=st.integers(1, 60))
    def repeat(self, which: int, rows: int) -> None:
        replica = self.replicas[which]
        if passed := replica.passes(rows):
            self.add(passed * self.price)
            replica.budget.settle("a", charged=passed * self.price, price=0.0)
            self.add(-passed * self.price)

    @rule(which=WHICH, more=st.floats(0, 40))
    def settle(self, which: int, more: float) -> None:
        replica = self.replicas[which]
        if passed := replica.passes(1):
            self.add(passed * self.price)
            replica.budget.settle("a", charged=self.price, price=self.price + more)

    @rule(which=WHICH)
    def ask(self, which: int) -> None:
        self.replicas[which].ask()

    @rule(gone=st.booleans(), loses_replies=st.booleans())
    def network(self, gone: bool, loses_replies: bool) -> None:
        self.ledger.is_gone, self.ledger.loses_replies = gone, loses_replies

    @rule(which=WHICH)
    def kill_a_replica(self, which: int) -> None:
        since_s = self.replicas[which].accounts.unreachable_since_s
        if since_s is not None and self.on_error == "allow":
            self.never_reported += (self.clock.now - since_s) * LIMIT.per_s / REPLICAS + SLICE
        self.replicas[which] = self.start()

    @rule(which=WHICH)
    def end_a_replica(self, which: int) -> None:
        asyncio.run(self.replicas[which].refill.give_back())
        self.kill_a_replica(which)

    @rule()
    def kill_the_ledger(self) -> None:
        self.ledger.forget()

    @invariant()
    def never_more_than_the_bound(self) -> None:
        bound = LIMIT.burst + REPLICAS * SLICE + self.lives * INITIAL + self.never_reported
        assert self.worst <= bound * (1 + 1e-6) + self.price * 0.01 * self.lives


TestOvershoot = Overshoot.TestCase
