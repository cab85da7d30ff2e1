"""On mixed tables: an outlier in any single column is withheld at the certified cut, good rows are not.

As calibration does: table and detectors are fitted on a third of the rows, tails on a fifth, and the cut is
certified on four fifteenths. Measured figures: docs/guards.md, raw tabular.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from guards.ood import Ood
from guards.order_statistic import certified_cut
from guards.rows import F8, Signals
from guards.table import Table
from tests.support.mixed_tables import HEAVY, WORLDS, Inputs, planted

NONE: frozenset[str] = frozenset()
FRESH = 1000
CASES = [
    (world, n, budget)
    for world in WORLDS
    for n, budget in ((1500, 0.02), (1500, 0.05), (5000, 0.02), (5000, 0.05))
]


@dataclass(frozen=True)
class Calibrated:
    """A guard at its certified cut, and good rows that it has not seen."""

    table: Table
    ood: Ood
    cut: float
    fresh: Inputs

    def score(self, inputs: Inputs) -> F8:
        return self.ood.score(Signals(None, t=self.table.read(inputs)))

    def withheld(self, inputs: Inputs) -> float:
        return float((self.score(inputs) >= self.cut).mean())


@cache
def calibrated(world: str, n: int, budget: float, seed: int = 0) -> Calibrated:
    rng = np.random.default_rng([n, seed])
    rows = WORLDS[world](rng, n)
    ends = np.cumsum([int(n * share) for share in (1 / 3, 1 / 5, 4 / 15)])
    folds = [{name: x[part] for name, x in rows.items()} for part in map(slice, [0, *ends[:-1]], ends)]
    table = Table.fit(folds[0], NONE, NONE)
    assert table is not None
    fit, tail, cut = (Signals(None, t=table.read(fold)) for fold in folds)
    ood = Ood.fit(("raw",), fit, np.zeros(ends[0], np.int64), tail, 0)
    return Calibrated(
        table, ood, certified_cut(ood.score(cut), budget, 0.05).value, WORLDS[world](rng, FRESH)
    )


@pytest.mark.parametrize(("world", "n", "budget"), CASES)
def test_an_outlier_in_any_single_column_is_withheld_in_nine_rows_of_ten(
    world: str, n: int, budget: float
) -> None:
    guard = calibrated(world, n, budget)
    shares = {
        (name, side): guard.withheld({**guard.fresh, name: planted(column, side)})
        for name, column in guard.fresh.items()
        for side in (-1.0, 1.0)
        if (name, side) not in {(heavy, 1.0) for heavy in HEAVY}
    }
    assert {where: share for where, share in shares.items() if share < 0.9} == {}


@pytest.mark.parametrize(("world", "n", "budget"), CASES)
def test_false_alarms_on_fresh_rows_keep_to_the_budget(world: str, n: int, budget: float) -> None:
    guard = calibrated(world, n, budget)
    error = np.sqrt(budget * (1 - budget) / FRESH)
    assert guard.withheld(guard.fresh) < budget + 2 * error


def test_heavy_tails_raise_no_alarms_of_their_own() -> None:
    guard = calibrated("credit", 5000, 0.05)
    extreme = {name: guard.fresh[name] > np.quantile(guard.fresh[name], 0.97) for name in HEAVY}
    for name, rows in extreme.items():
        part = {key: column[rows] for key, column in guard.fresh.items()}
        assert guard.withheld(part) < 0.5, name


def test_a_broken_relation_of_usual_values_is_withheld() -> None:
    guard = calibrated("credit", 5000, 0.05)
    for name in ("score_percent", "score_and_age"):
        other = np.random.default_rng(0).permutation(guard.fresh[name])
        assert guard.withheld({**guard.fresh, name: other}) > 0.75, name
