"""What calibration found for a budget that is stated in rows: weights, the allowance, and costs."""

from __future__ import annotations

from dataclasses import dataclass

from guards.gcra import Limit
from guards.price import Prices

BASE_BITS = 1.0
"""Bits that every row costs beside what its caller's tier shows."""


@dataclass(frozen=True, slots=True)
class HonestUse:
    """What honest callers do, and which share of them may be throttled.

    rows: at once after a pause; per_s: rows a second in the long run; review: whether what guards and checks
    stop waits for a reviewer; else it is refused, which costs more.
    """

    rows: int
    per_s: float
    throttled: float
    review: bool


@dataclass(frozen=True, slots=True)
class ThiefCost:
    """One kind of thief. cost: of an answered row, with its rows that were not answered; answered: the share
    of its rows that are."""

    kind: str
    cost: float
    answered: float


@dataclass(frozen=True, slots=True)
class FittedPrices:
    """Weights and costs are multiples of the plain price: base and what the caller's tier shows.

    expected: what an honest row costs on average, which is charged at admission; allowance: what a row of a
    caller may cost on average; delta: of the certified share; callers, over: how many were simulated to
    certify it, and how many of them need the allowance or more; honest: what an answered row costs an honest
    caller, with its rows that were not answered.
    """

    use: HonestUse
    uncertainty: float
    novelty: float
    refusal_factor: float
    expected: float
    allowance: float
    delta: float
    callers: int
    over: int
    honest: float
    thieves: tuple[ThiefCost, ...]

    @property
    def prices(self) -> Prices:
        weights = self.uncertainty, self.novelty, self.refusal_factor
        return Prices(BASE_BITS, *weights, of_admission=True, expected=self.expected)

    def limit(self, rows: float, per_s: float, tier_bits: float) -> Limit:
        """A bucket for so many rows of callers to whom so many bits are shown."""
        bits = self.allowance * (BASE_BITS + tier_bits)
        return Limit(per_s * bits, rows * bits)
