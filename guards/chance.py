"""The chance that an exact test on other rows will pass, judged by pilot rows. For planning alone.

Given j of n pilot rows wrong at an order statistic of their scores, the true rate is Beta(j + 1, n - j)
distributed (if scores do not repeat; smaller if they do), so the wrong rows among m test rows are
beta-binomial.
"""

from __future__ import annotations

import numpy as np

from guards.selective import most_errors

PASS = 0.95
"""The chance that a plan leaves the later test."""


def chance_to_pass(errors: int, accepted: int, tests: int, r: float, delta: float) -> float:
    """The chance that so many test rows certify a rate of at most r.

    Args:    0 <= errors < accepted: pilot rows; tests: accepted test rows, >= 0; r, delta: in (0, 1).
    Returns: a number in [0, 1]; 0 for test rows too few even without an error. Falls with `errors`.
    Cost:    O(tests).
    """
    return beta_binomial_cdf(most_errors(tests, r, delta), tests, errors + 1, accepted - errors)


def beta_binomial_cdf(i: int, n: int, a: float, b: float) -> float:
    """P(Bin(n, p) <= i) for p of Beta(a, b); masses from the log ratios of neighbours. Cost: O(n)."""
    if i < 0:
        return 0.0
    k = np.arange(n)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - k) * (a + k) / ((k + 1) * (n - k - 1 + b))))])
    masses = np.exp(logs - logs.max())
    return float(masses[: i + 1].sum() / masses.sum())
