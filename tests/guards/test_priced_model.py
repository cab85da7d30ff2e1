"""The priced budget against exact arithmetic, step by step; and what all steps together may admit."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guards.gcra import Buckets, Limit
from guards.priced import SLACK, PricedBudget
from tests.guards.test_rate import Clock

EIGHTHS = st.integers(0, 400).map(lambda n: n / 8)
NAMES = st.sampled_from(["a", "b", "c"])
PER_S, BURST, MODEL_PER_S, MODEL_BURST = 4, 64, 8, 128
FACTOR, MOST = 2, 48


class Bucket:
    """Units owed, in fractions; and what the bucket has been charged and given back since the beginning."""

    def __init__(self, per_s: int, burst: int) -> None:
        self.per_s, self.burst, self.at = per_s, burst, Fraction(0)
        self.owed = self.open = self.penalty = self.charged = self.refunded = Fraction(0)

    def left(self, now: Fraction) -> Fraction:
        self.owed, self.at = max(Fraction(0), self.owed - (now - self.at) * self.per_s), now
        return self.burst - self.owed

    def fits(self, price: Fraction, rows: int, now: Fraction) -> int:
        self.burst_now = max(Fraction(self.burst), price)
        left = self.left(now) + self.burst_now - self.burst
        return min(rows, int(max(Fraction(0), left + Fraction(SLACK) * price) / price)) if price else rows


class PricedBudgetAgainstFractions(RuleBasedStateMachine):
    """Every number of the test is a multiple of an eighth, so that floats are exact as well."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.price = Clock(0.0), 1.0
        self.budget = PricedBudget(
            Buckets(), Limit(PER_S, BURST), lambda name: self.price, self.clock,
            model_limit=Limit(MODEL_PER_S, MODEL_BURST), refusal_factor=FACTOR, most_penalty=MOST,
        )  # fmt: skip
        self.own = {name: Bucket(PER_S, BURST) for name in "abc"}
        self.model = Bucket(MODEL_PER_S, MODEL_BURST)

    @initialize(start=EIGHTHS)
    def begin(self, start: float) -> None:
        self.clock.now = start

    @property
    def now(self) -> Fraction:
        return Fraction(self.clock.now)

    @rule(seconds=EIGHTHS)
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=NAMES, rows=st.integers(1, 12), price=EIGHTHS)
    def charge(self, name: str, rows: int, price: float) -> None:
        self.price, own, exact = price, self.own[name], Fraction(price)
        fits = own.fits(exact, rows, self.now)
        admitted = self.model.fits(exact, fits, self.now) if fits else 0
        for bucket in (own, self.model) if admitted and price else ():
            bucket.owed += admitted * exact
            bucket.open += admitted * exact
            bucket.charged += admitted * exact
            bucket.penalty = Fraction(0)
        if admitted == fits < rows:
            penalty: Fraction = min(FACTOR * exact * (rows - admitted), MOST - own.penalty)
            own.penalty += penalty
            own.owed += penalty
        scores = self.budget.charge(name, rows)
        assert [score < 1 for score in scores] == [True] * admitted + [False] * (rows - admitted)
        if admitted == fits < rows:
            wait = max(Fraction(0), exact + own.owed - own.burst_now) / PER_S
            assert abs((scores[-1] - 1) * BURST / PER_S - float(wait)) < 1e-9

    @rule(name=NAMES, charged=EIGHTHS, price=EIGHTHS)
    def settle(self, name: str, charged: float, price: float) -> None:
        self.budget.settle(name, charged, price)
        for bucket in (self.own[name], self.model):
            bucket.left(self.now)
            more: Fraction = max(Fraction(price) - Fraction(charged), -bucket.open)
            bucket.open = max(bucket.open - Fraction(charged), Fraction(0))
            bucket.refunded += max(-more, Fraction(0))
            bucket.owed = max(bucket.owed + more, Fraction(0))

    @invariant()
    def no_more_was_given_back_than_was_charged(self) -> None:
        for bucket in (*self.own.values(), self.model):
            assert bucket.refunded <= bucket.charged

    @invariant()
    def never_more_is_admitted_than_the_limit_and_what_was_given_back(self) -> None:
        for bucket in (*self.own.values(), self.model):
            most = bucket.burst + bucket.per_s * self.now + bucket.refunded
            assert bucket.charged <= most + Fraction(SLACK) * 50 * 200 + 50  # a row dearer than the bucket


TestPricedBudget = PricedBudgetAgainstFractions.TestCase
