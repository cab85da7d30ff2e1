"""Compares procedures for the confidence cut on the same draws: violations, refusals and coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.validity.error_curves import PILOT_ROWS, Scenario, scenarios
from bench.validity.procedures import PROCEDURES, Procedure
from bench.validity.summary import limits
from guards.binomial import cdf
from guards.selective import most_errors

DELTA = 0.05
POWER = 0.98
NEEDED_FOR = (0.25, 0.1, 0.05, 0.02)
MOST_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Compared:
    """One procedure on one scenario.

    broken: the share of draws whose certified cut is wrong more often than r, with its limits at 99 %;
    refused: the share without a certified cut; coverage: the mean true share below the cut, 0 where refused;
    error: the true share of wrong answers if everything is answered.
    """

    scenario: str
    test_rows: int
    r: float
    error: float
    procedure: str
    draws: int
    broken: float
    lower: float
    upper: float
    refused: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Possible:
    """What no test can beat: one exact binomial test of one cut, where the true error is 0.8 r everywhere.

    refused: of 1,000 rows; rows: the least number from which at most 2 % is refused.
    """

    r: float
    refused: float
    rows: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All procedures on all scenarios."""

    compared: Sequence[Compared]
    possible: Sequence[Possible]


def compare(draws: int) -> Comparison:
    """Every procedure on the same draws. Cost: about a minute for 500 draws."""
    found = [one for scenario in scenarios() for one in _of_scenario(scenario, draws)]
    return Comparison(found, [_possible(r) for r in NEEDED_FOR])


def _of_scenario(scenario: Scenario, draws: int) -> Iterator[Compared]:
    for name, procedure in PROCEDURES.items():
        cuts = [_cut(scenario, procedure, seed) for seed in range(draws)]
        known = [scenario.curve.below(cut) for cut in cuts if cut is not None]
        broken = sum(error > scenario.r for _, error in known)
        yield Compared(
            scenario.name,
            scenario.test_rows,
            scenario.r,
            float(scenario.curve.error.mean()),
            name,
            draws,
            broken / draws,
            *limits(broken, draws),
            1 - len(known) / draws,
            sum(coverage for coverage, _ in known) / draws,
        )


def _cut(scenario: Scenario, procedure: Procedure, seed: int) -> float | None:
    rng = np.random.default_rng(seed)
    test = scenario.curve.draw(scenario.test_rows, rng)
    pilot = scenario.curve.draw(round(PILOT_ROWS * scenario.test_rows), rng)
    return procedure(pilot, test, scenario.r, DELTA)


def _possible(r: float) -> Possible:
    low, high = 1, 2
    while refusal(high, r) > 1 - POWER and high < MOST_ROWS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if refusal(middle, r) > 1 - POWER else (low, middle)
    return Possible(r, refusal(1_000, r), high)


def refusal(rows: int, r: float) -> float:
    """The probability that one exact test of level delta does not pass, at a true error of 0.8 r."""
    return 1 - cdf(most_errors(rows, r, DELTA), rows, 0.8 * r)
