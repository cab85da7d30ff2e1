"""The binomial distribution function without scipy, used by both certified cuts.

Numerics: docs/guards.md, section 8.
"""

from __future__ import annotations

import numpy as np

from guards.rows import F8


def log_masses(n: int, p: float) -> F8:
    """float64[n + 1]: log P(Bin(n, p) = i) for i = 0 .. n, 0 < p < 1.

    Cumulative sums of the log ratios of neighbouring masses, outward from the mode, where the ratios are
    close to one and nothing cancels; then normalised to sum to one. No factorial is formed, so nothing
    overflows.
    """
    i = np.arange(1, n + 1)
    ratio = np.log((n - i + 1) * (p / (1 - p)) / i)
    mode = min(n, int((n + 1) * p))
    below = -np.cumsum(ratio[:mode][::-1])[::-1]
    logs = np.concatenate([below, [0.0], np.cumsum(ratio[mode:])])
    return np.asarray(logs - np.log(np.exp(logs).sum()), np.float64)


def cdf(i: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= i), to 1e-10 for n up to 1,000,000. Cost: O(n), about 0.2 ms at n = 10,000."""
    if i < 0:
        return 0.0
    if i >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    return min(1.0, float(np.exp(log_masses(n, p)[: i + 1]).sum()))
