"""Prices fitted so that honest callers are hardly ever over their budget, and thieves learn little within it.

A row costs, in plain prices (base and what the caller's tier shows),

    c = 1 + w_u uncertainty + w_n novelty    if it is answered
    c = 1 + w_n novelty                      if it waits for a reviewer
    c = f (1 + w_n novelty)                  if a guard or a check refuses it

and a budget for `rows` rows holds `rows` times an allowance m. For given weights, m is the least that all but
the stated share of honest callers keep to (`honest_callers.py`). Larger weights let a thief's rows cost more,
and m as well, since honest callers differ. So the weights are those with which thieves get the fewest answers
from a budget, on average over their kinds: m times the share of a thief's rows that is answered, over what
its rows cost. One bound: m is at most one and a half times what honest rows cost on average, so that a sender
of such rows, honest or a thief whom no price can tell apart, gets at most half as many rows more than stated.

The weights are chosen on one fold, and m is certified on another, by an order statistic of fresh callers
(`order_statistic.py`). What is certified, with probability 1 - delta over the simulated callers: of callers
drawn as in `honest_callers.py` from these rows, at most the stated share need more than m.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from guards.detector import I8
from guards.fitted_prices import FittedPrices, HonestUse, ThiefCost
from guards.honest_callers import WINDOW, needed, simulated_burst, windows
from guards.order_statistic import certified_cut, samples_needed
from guards.price import Told
from guards.rows import F8

WEIGHTS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Tried for uncertainty and for novelty, in plain prices. More hardly moves a thief's costs, and makes
the plainest rows cheaper beside the allowance."""
REFUSAL_FACTORS: Final = (5.0, 1.0, 2.0, 3.0, 4.0, 7.0, 10.0)
"""The first is kept where refusals make no difference."""
MOST_SLACK: Final = 1.5
"""Of the allowance, over what honest rows cost on average."""
RANDOM: Final = "random"
"""The thief that sends honest rows. Its costs are told, and move no weight."""
PILOT_CALLERS: Final = 2000
MORE_CALLERS: Final = 4
"""Times the least number that could certify the share, so that its cut is not the most extreme caller."""
CHECKED: Final = np.array([1.0, 1.25, 1.5, 2.0, 3.0, 4.0])
"""Where the weights' search looks at a caller's mean, in bursts. What is certified looks at every row."""
LEAST_GAIN: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class PricedRows:
    """n rows and what they were told. answered: bool[n]; told: float64[n, 4], the rest of `Told`."""

    answered: NDArray[np.bool_]
    told: F8

    @classmethod
    def of(cls, rows: Sequence[Told]) -> Self:
        """Of single rows."""
        columns = np.array(rows, np.float64)
        return cls(columns[:, 1] > 0, columns[:, 2:])


class HonestRows(NamedTuple):
    """Held-out rows and their classes, int64[n]; zeros where there are none."""

    rows: PricedRows
    classes: I8


class Weights(NamedTuple):
    """In plain prices."""

    uncertainty: float
    novelty: float
    refusal_factor: float

    def costs(self, told: F8) -> F8:
        """What rows cost: float64[...] of float64[..., 4], means over rows included. As `Prices`."""
        factor = self.refusal_factor
        return np.asarray(1.0 + told @ (factor - 1.0, self.uncertainty, self.novelty, factor * self.novelty))

    def answered_row(self, rows: PricedRows) -> float:
        """What a row costs that is answered, with those that are not: all costs over all answers.

        Where none of n rows is answered, as if one were.
        """
        return float(self.costs(rows.told).sum() / max(int(rows.answered.sum()), 1))


def fit(
    pilot: HonestRows,
    fresh: HonestRows,
    thieves: Mapping[str, PricedRows],
    use: HonestUse,
    delta: float,
    seed: int,
) -> FittedPrices:
    """The prices of a budget.

    Args:    pilot: to choose the weights on; fresh: others, to certify the allowance on; thieves: by kind,
             the rows that each would send. None is empty.
    Raises:  ValueError for a cost that is no number.
    Cost:    five seconds for 0.1 % of callers that send 1,000 rows at once: 12,000 callers.
    """
    rng = np.random.default_rng(seed)
    weights = _best(pilot, thieves, use, rng)
    callers = MORE_CALLERS * samples_needed(use.throttled, delta)
    costs = weights.costs(fresh.rows.told)
    found = needed(costs, fresh.classes, callers, use.rows, rng)
    cut = certified_cut(found, use.throttled, delta)
    return FittedPrices(
        use,
        *weights,
        expected=float(costs.mean()),
        allowance=cut.value,
        delta=delta,
        callers=cut.n,
        over=int((found >= cut.value).sum()),
        honest=weights.answered_row(fresh.rows),
        thieves=tuple(
            ThiefCost(kind, weights.answered_row(rows), float(rows.answered.mean()))
            for kind, rows in thieves.items()
        ),
    )


def _best(
    pilot: HonestRows, thieves: Mapping[str, PricedRows], use: HonestUse, rng: np.random.Generator
) -> Weights:
    """The weights with which thieves get the fewest answers for a row of the budget; of equals the first."""
    at = np.ceil(CHECKED * simulated_burst(use.rows)).astype(np.intp)
    told = pilot.rows.told
    drawn = windows(pilot.classes, PILOT_CALLERS, use.rows, rng)
    means = np.stack([np.cumsum(told[rows], axis=0)[at - 1] / at[:, None] for rows in drawn])
    told_apart = [rows for kind, rows in thieves.items() if kind != RANDOM]
    best, least = Weights(0.0, 0.0, 1.0), math.inf
    for factor, unsure, new in itertools.product(REFUSAL_FACTORS, WEIGHTS, WEIGHTS):
        weights = Weights(unsure, new, factor)
        allowance = np.quantile(weights.costs(means).max(axis=1), 1 - use.throttled, method="higher")
        if allowance > MOST_SLACK * weights.costs(told).mean():
            continue
        answers = float(np.mean([allowance / weights.answered_row(rows) for rows in told_apart]))
        if answers < least - LEAST_GAIN:
            best, least = weights, answers
    return best


assert CHECKED[-1] == WINDOW
