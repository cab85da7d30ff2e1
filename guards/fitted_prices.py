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
    """One kind of thief. cost: of an answered row, in prices at admission, with the rows that were not
    answered; answered: the share of its rows that are."""

    kind: str
    cost: float
    answered: float


@dataclass(frozen=True, slots=True)
class FittedPrices:
    """Weights and costs are multiples of the price at admission: base and what the caller's tier shows.

    allowance: what a row may cost on average; delta: of the certified share; callers, over: how many were
    simulated to certify it, and how many of them need the allowance or more; honest: what an answered row
    costs an honest caller on average.
    """

    use: HonestUse
    uncertainty: float
    novelty: float
    refusal_factor: float
    allowance: float
    delta: float
    callers: int
    over: int
    honest: float
    thieves: tuple[ThiefCost, ...]

    @property
    def prices(self) -> Prices:
        return Prices(BASE_BITS, self.uncertainty, self.novelty, self.refusal_factor, of_admission=True)

    def limit(self, rows: float, per_s: float, at_admission: float) -> Limit:
        """A bucket for so many rows of callers for whom a row costs so many bits at admission."""
        bits = self.allowance * at_admission
        return Limit(per_s * bits, rows * bits)
