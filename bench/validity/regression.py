"""One re-split of a population of numbers: every policy calibrated on it by the gateway's own functions.

The intervals of one promise are fitted once for policies that have the same `max_width`: they do not depend
on the other rungs. Guards and bounds read an input alone, so each of the inputs is judged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.validity.regression_pools import RegressionPool, regression_pool
from bench.validity.regression_shapes import (
    ABSOLUTE_FACTORS,
    FITTED_TOGETHER,
    NO_LIMITS,
    RUNGS,
    Limits,
    regression_policy,
)
from bench.validity.resplit import JUDGED_FOLDS, Certified, fold_parts, take
from bench.validity.truth import Outcome, outcome
from fallbacks.roles import LOWER, UPPER, VALUE
from gateway.calibration.folds import SEED
from gateway.calibration.intervals import fit_intervals, with_bounds
from gateway.calibration.judge import Judged, judge, measures_on
from gateway.core.errors import PolicyError
from gateway.core.rows import RowIndices
from gateway.deployment.certification.alarms import certified_guards
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.rows import CalibrationRows, FittingFolds
from gateway.policy.schema import Policy

LIMITS_ROWS, LIMITS_SEED = 10_000, 1_000_000
NARROW_SHARE = 0.6
CLIP = 4.0
"""In mean absolute errors."""


def draw_rows(pool: RegressionPool, n: int, seed: int) -> dict[str, RowIndices]:
    """The folds of a file of n independent rows: indices into `every_row`."""
    rows = np.random.default_rng([seed, n]).integers(0, pool.y.size, n)
    return {name: rows[part] for name, part in fold_parts(n).items()}


def every_row(pool: RegressionPool, rows: CalibrationRows) -> CalibrationRows:
    """The whole population: each input of `rows` with each of its true values, m k rows."""
    return replace(rows.take(_inputs(pool, np.arange(pool.y.size))), truth=pool.y.ravel())


def resplit_regression(name: str, n: int, seed: int, shapes: Sequence[str]) -> list[Certified]:
    """These shapes with every promise, on one calibration file. Cost: under a second for 3,000 rows."""
    pool, folds = _pool(name), draw_rows(_pool(name), n, seed)
    try:
        judged = _judged(pool, folds)
    except ValueError as error:
        refused = Outcome(f"guards: {error}", (), 0.0)
        return [Certified(shape, r, refused) for r in ABSOLUTE_FACTORS for shape in shapes]
    return [one for r in ABSOLUTE_FACTORS for one in _of_promise(pool, folds, judged, r, shapes)]


def _of_promise(
    pool: RegressionPool, folds: Mapping[str, RowIndices], judged: Judged, r: float, shapes: Sequence[str]
) -> list[Certified]:
    found: dict[str, Outcome] = {}
    for fitted, several in FITTED_TOGETHER.items():
        if asked := [shape for shape in several if shape in shapes]:
            found |= _of_intervals(pool, folds, judged, r, fitted, asked)
    return [Certified(shape, r, found[shape]) for shape in shapes]


def _of_intervals(
    pool: RegressionPool,
    folds: Mapping[str, RowIndices],
    judged: Judged,
    r: float,
    fitted: str,
    shapes: Sequence[str],
) -> dict[str, Outcome]:
    """Shapes whose intervals are those of the shape `fitted`."""
    try:
        bounded = _with_bounds(pool, folds, _policy(pool, fitted, r))
    except PolicyError as error:
        return dict.fromkeys(shapes, Outcome(f"intervals: {error}", (), 0.0))
    every = take(judged, _inputs(pool, np.arange(pool.y.size)))
    population = replace(every, rows=every_row(pool, bounded))
    parts = {name: take(population, folds[name]) for name in JUDGED_FOLDS}
    return {shape: outcome(_policy(pool, shape, r), parts, population) for shape in shapes}


def _policy(pool: RegressionPool, shape: str, r: float) -> Policy:
    return regression_policy(shape, r, limits_of(pool.name), guarded=pool.guarded)


def _judged(pool: RegressionPool, folds: Mapping[str, RowIndices]) -> Judged:
    """The m inputs, judged by the guard fitted on a file, where there is one."""
    if not pool.guarded:
        return Judged(pool.rows, {}, {})
    rows = {name: pool.rows.take(_inputs(pool, folds[name])) for name in ("fit", "tail")}
    policy = regression_policy("any width", 0.1, NO_LIMITS, guarded=True)
    fitting = FittingFolds(rows["fit"], rows["tail"], SEED)
    fitted = {guard.name: guard.fit(fitting) for guard in certified_guards(policy)}
    return judge(pool.rows, fitted, measures_on(fitting.fit, fitted))


def _with_bounds(pool: RegressionPool, folds: Mapping[str, RowIndices], policy: Policy) -> CalibrationRows:
    """The m inputs with the bounds that are fitted on a file. Raises PolicyError."""
    every = every_row(pool, pool.rows)
    rows = {name: every.take(part) for name, part in folds.items()}
    intervals = fit_intervals(Deployment(Path("validity"), policy, None), rows, lambda step: None)
    return with_bounds(pool.rows, intervals)


@lru_cache
def limits_of(name: str) -> Limits:
    """What the policies of a population may promise. Cost: some seconds, for one calibration a promise."""
    pool = _pool(name)
    folds = draw_rows(pool, LIMITS_ROWS, LIMITS_SEED)
    widest, relative = {}, {}
    for r in ABSOLUTE_FACTORS:
        policy = regression_policy("any width", r, NO_LIMITS, guarded=False)
        answer = _with_bounds(pool, folds, policy).answers[RUNGS[0]]
        width = answer[UPPER] - answer[LOWER]
        widest[r] = float(np.quantile(width, NARROW_SHARE))
        relative[r] = float(np.quantile(width / np.abs(answer[VALUE]), NARROW_SHARE))
    errors = np.abs(pool.y - pool.rows.answers[RUNGS[0]][VALUE])
    clip = round(CLIP * float(errors.mean()), 4)
    return Limits(widest, relative, float(np.minimum(errors, clip).mean()), clip)


def _inputs(pool: RegressionPool, rows: RowIndices) -> RowIndices:
    """The input of each row of the whole population."""
    return np.asarray(rows // pool.y.shape[1], np.intp)


@lru_cache
def _pool(name: str) -> RegressionPool:
    return regression_pool(name)
