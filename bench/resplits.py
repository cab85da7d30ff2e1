"""Re-splits: whether the certificate's arithmetic is right, and its population covers the rows received.

The guards stay as fitted; only the cut is drawn again. Each time, held-out rows that no guard was fitted on
are split in two: one half sets the cut, the other counts false alarms.

* **Same population**: both halves from the calibration data. Random halves of anything are exchangeable, so
  this tests ties and arithmetic. Without ties the number of alarms among m rows is exactly
  beta-binomial, BB(m, k, n + 1 - k), for every set of scores. So the share of splits over the budget has an
  exact expectation, above delta: the certificate bounds the true rate, and m rows only sample it.
* **Fresh rows**: the cut from half of the calibration data, the alarms counted on the test set. If that is
  another population (Fashion-MNIST's test set is a little harder than its training set), it shows here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gateway.core.rows import F8
from guards.binomial import cdf
from guards.order_statistic import certified_cut


@dataclass(frozen=True, slots=True)
class Resplit:
    """mean, exceed: measured over the splits; expected_*: exact for exchangeable rows without ties.

    true_exceed: the probability, at most delta, that the true rate behind a cut is over the budget.
    """

    what: str
    splits: int
    n: int
    m: int
    k: int
    mean: float
    expected_mean: float
    exceed: float
    expected_exceed: float
    true_exceed: float


@dataclass(frozen=True, slots=True)
class ResplitSettings:
    """What each cut is to promise, and how many to draw."""

    budget: float
    delta: float
    splits: int
    seed: int


def resplit(what: str, pool: F8, fresh: F8 | None, draw: ResplitSettings) -> Resplit:
    """Draws the cut again and again from half of the pool; counts alarms in the rest of it, or in `fresh`.

    Raises:  ValueError if half of the pool cannot support the budget.
    """
    rng = np.random.default_rng(draw.seed)
    half, alarms = len(pool) // 2, np.empty(draw.splits)
    for i in range(draw.splits):
        mixed = rng.permutation(pool)
        cut = certified_cut(mixed[:half], draw.budget, draw.delta)
        alarms[i] = ((mixed[half:] if fresh is None else fresh) >= cut.value).sum()
    m = len(pool) - half if fresh is None else len(fresh)
    return Resplit(
        what, draw.splits, half, m, cut.k,
        mean=float(alarms.mean()) / m,
        expected_mean=cut.k / (half + 1),
        exceed=float((alarms > draw.budget * m).mean()),
        expected_exceed=beta_binomial_over(math.floor(draw.budget * m), m, cut.k, half + 1 - cut.k),
        true_exceed=cdf(cut.k - 1, half, draw.budget),
    )  # fmt: skip


def beta_binomial_over(x: int, m: int, a: float, b: float) -> float:
    """P(BB(m, a, b) > x)."""

    def log_beta(p: float, q: float) -> float:
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    def log_mass(i: int) -> float:
        return -math.log(m + 1) - log_beta(i + 1, m - i + 1) + log_beta(i + a, m - i + b) - log_beta(a, b)

    return math.fsum(math.exp(log_mass(i)) for i in range(x + 1, m + 1))
