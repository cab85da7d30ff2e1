"""Evidence that a principal searches: an e-process on rows that nearly repeat a query of a small margin.

Each row is a bet against the hypothesis that its chance to be such a hit, given everything before, is at most
the honest rate. A bet of factor 1 + lambda (hit - rate) has a mean of at most 1 under it, so wealth that
begins at 1 ever reaches 1 / alpha with probability at most alpha (Ville). What is bet from the first row on
is lost on a long honest past, and a search after it would not be seen. So most is kept in reserve, and a part
of it begins to bet with each row: after a million rows a twentieth is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from guards.coarse import F4
from guards.near_pairs import NEAR, Matches

HIT_RATES: Final = (0.1, 0.3, 0.6, 0.9)
"""The rates of hits for which the bets are the best."""
MOST_WEALTH: Final = 1e15


@dataclass(frozen=True, slots=True)
class Evidence:
    """Wealth of one suspect. rows: bet on so far, of the oldest principal; reserve: not yet bet; bets: the
    wealth of each bet; deposits: principals whose wealth is in it, each of which began with 1.
    """

    rows: int
    reserve: float
    bets: tuple[float, ...]
    deposits: int

    @property
    def value(self) -> float:
        """The e-value: the mean wealth of a deposit, in [0, inf)."""
        return (self.reserve + sum(self.bets)) / self.deposits


@dataclass(frozen=True, slots=True)
class Bets:
    """honest_rate: in (0, 0.5], at least the chance of a hit of an honest row given all before it, as
    `near_cut` bounds it; alpha: in (0, 1), the alarm is at 1 / alpha.
    """

    honest_rate: float
    alpha: float
    at_miss: tuple[float, ...] = field(init=False, repr=False)
    at_hit: tuple[float, ...] = field(init=False, repr=False)
    """By what each bet is multiplied: 1 + lambda (hit - rate), where lambda = (q - rate) / (rate (1 - rate))
    grows fastest where hits come at rate q > honest_rate."""

    def __post_init__(self) -> None:
        rate = self.honest_rate
        if not (0 < rate <= 0.5 and 0 < self.alpha < 1):
            raise ValueError(f"sequence: {self}; the rate is in (0, 0.5], alpha in (0, 1)")
        aimed = [q for q in HIT_RATES if q > rate] or [(1 + rate) / 2]
        object.__setattr__(self, "at_miss", tuple((1 - q) / (1 - rate) for q in aimed))
        object.__setattr__(self, "at_hit", tuple(q / rate for q in aimed))

    def new(self) -> Evidence:
        """The evidence against a principal that was never seen: an e-value of 1."""
        return Evidence(0, 1.0, (0.0,) * len(self.at_hit), 1)

    def after(self, evidence: Evidence, hits: Iterable[bool]) -> Evidence:
        """The evidence after some rows, in order.

        With t rows before, a share of 1 - log(t + 2) / log(t + 3) of the reserve begins to bet, evenly on all
        bets: of a first reserve of 1 then 1 / log2(t + 3) is left. Wealth beyond 10^15 is given away.

        Cost:    1 us, and 0.6 us a row.
        Source:  docs/guards.md, sequences.
        """
        rows, reserve, bets = evidence.rows, evidence.reserve, evidence.bets
        most = MOST_WEALTH * evidence.deposits
        for hit in hits:
            kept = reserve * math.log(rows + 2) / math.log(rows + 3)
            released = (reserve - kept) / len(bets)
            factors = self.at_hit if hit else self.at_miss
            bets = tuple([(bet + released) * factor for bet, factor in zip(bets, factors, strict=True)])
            if hit:
                bets = tuple([min(most, bet) for bet in bets])
            rows, reserve = rows + 1, kept
        return Evidence(rows, reserve, bets, evidence.deposits)

    def alarms(self, evidence: Evidence) -> bool:
        """Whether the e-value has reached 1 / alpha."""
        return evidence.value >= 1 / self.alpha


def pooled(a: Evidence, b: Evidence) -> Evidence:
    """The evidence against two suspects that are taken for one: their wealth together.

    The e-value is the mean, weighted by deposits, which is valid however the two depend on each other and
    whatever made them one. Their product would need that they had been chosen before their rows were seen.
    What comes after is bet with the pooled wealth, so that it multiplies over all their rows.
    """
    bets = tuple(x + y for x, y in zip(a.bets, b.bets, strict=True))
    return Evidence(max(a.rows, b.rows), a.reserve + b.reserve, bets, a.deposits + b.deposits)


def hits(matches: Matches, margins: F4, most_margin: float) -> NDArray[np.bool_]:
    """Which rows nearly repeat a query whose margin was small. A repetition is none: it is a retry.

    A margin that is not known counts as small: whether a query was answered tells an attacker as much.

    Args:    matches: of n rows. margins: float32[n], of the earlier query that each row matches
             (`QueryMemory.margins`), NaN if not known, as of rows of the same batch. most_margin: the
             largest small margin; infinity counts every near row, against extraction.
    Returns: bool[n].
    """
    found: NDArray[np.bool_] = (matches.kinds == NEAR) & ~(margins > most_margin)
    return found
