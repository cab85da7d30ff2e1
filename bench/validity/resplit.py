"""One re-split: a calibration file drawn from a population, every policy certified on it, and the truth.

Guards are fitted and the population is scored once for all policies, because neither depends on cuts,
verdicts, shares or budgets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.validity.pools import POOLS, Pool
from bench.validity.shapes import BUDGETS, every_guard, policy_of
from bench.validity.truth import Outcome, outcome
from gateway.calibration.folds import SEED, fold_indices
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.calibration.samples import Samples
from gateway.core.rows import RowIndices
from gateway.deployment.certification.alarms import certified_guards
from gateway.deployment.measures import Measures
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.rows import FittingFolds
from gateway.policy.schema import Policy

JUDGED_FOLDS = ("tail", "cut", "risk")


@dataclass(frozen=True, slots=True)
class Certified:
    """What the calibration of one policy came to."""

    shape: str
    budget: float
    outcome: Outcome


def draw(pool: Pool, n: int, seed: int) -> dict[str, RowIndices]:
    """The folds of a calibration file of n independent rows of a population, each a sample of its own."""
    rows = np.random.default_rng([seed, n]).integers(0, len(pool.rows), n)
    return {name: rows[part] for name, part in fold_parts(n).items()}


def fold_parts(n: int) -> dict[str, RowIndices]:
    """Which rows of a file are in which fold, if each is a sample of its own."""
    return fold_indices(Samples(np.arange(n), n, n, "rows", None))


def resplit_classifier(name: str, n: int, seed: int, shapes: Sequence[str]) -> list[Certified]:
    """As `resplit`, of a population that this process makes once."""
    return list(resplit(_pool(name), n, seed, shapes))


@lru_cache(maxsize=len(POOLS))
def _pool(name: str) -> Pool:
    return POOLS[name]()


def resplit(pool: Pool, n: int, seed: int, shapes: Sequence[str]) -> Iterator[Certified]:
    """These shapes at every budget, on one calibration file. Cost: about a second for all of them."""
    policies = [(shape, budget) for budget in BUDGETS for shape in shapes]
    folds = draw(pool, n, seed)
    try:
        population = judge(pool.rows, *fit_guards(pool, folds))
    except ValueError as error:  # what `calibrate` refuses with for guards that cannot be fitted or recorded
        yield from (Certified(*one, Outcome(f"guards: {error}", (), 0.0)) for one in policies)
        return
    judged = {name: take(population, folds[name]) for name in JUDGED_FOLDS}
    for shape, budget in policies:
        policy = policy_of(pool, shape, budget, n)
        parts = {name: of_policy(one, policy) for name, one in judged.items()}
        yield Certified(shape, budget, outcome(policy, parts, of_policy(population, policy)))


def fit_guards(pool: Pool, folds: Mapping[str, RowIndices]) -> tuple[dict[str, FittedGuard], Measures]:
    """Every guard fitted on a file's folds, and the graphs that serve them."""
    fitting = FittingFolds(pool.rows.take(folds["fit"]), pool.rows.take(folds["tail"]), SEED)
    fitted = {guard.name: guard.fit(fitting) for guard in certified_guards(every_guard(pool))}
    return fitted, measures_on(fitting.fit, fitted)


def take(judged: Judged, rows: RowIndices) -> Judged:
    """Some judged rows, in the given order, each as often as it is given."""
    full = {name: scores[rows] for name, scores in judged.full.items()}
    alone = {name: scores[rows] for name, scores in judged.input_only.items()}
    return Judged(judged.rows.take(rows), full, alone)


def of_policy(judged: Judged, policy: Policy) -> Judged:
    """The scores of a policy's guards alone."""
    names: Collection[str] = {guard.name for guard in certified_guards(policy)}
    full = {name: scores for name, scores in judged.full.items() if name in names}
    alone = {name: scores for name, scores in judged.input_only.items() if name in names}
    return Judged(judged.rows, full, alone)
