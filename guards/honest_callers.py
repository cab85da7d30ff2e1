"""Simulated honest callers: whose windows of rows say how much a budget has to hold.

A caller sends `rows` rows at once after a pause and then three times as many, one by one, at its rate. Its
rows are drawn from held-out rows by weights of its own: a mixture of the classes, Dirichlet with the classes'
shares as parameters, so that most callers send one or two classes and some a single hard one; and within each
class exponential weights (the Bayesian bootstrap), so that two callers of one class differ too, by as much as
what is not known of the class from so few rows.

A row is charged what honest rows cost on average, h, when it is sent, and what it costs itself, c, once it
has ended. A bucket that holds b = `rows` rows at a price of m, and fills at m for each row of the rate, is
never overdrawn if

    c_1 + ... + c_k + (b - k) h <= b m                   for k = 0 ... b: whatever has ended of the burst
    c_1 + ... + c_(k - 1) + max(c_k, h) <= k m           for k > b
    c_i + ... + c_(k - 1) + max(c_k, h) <= (b + k - i) m for k >= i > b: the bucket was full again at i

The least such m is what the caller needs.

Source:  Rubin, Annals of Statistics 9 (1981), for the weights. Deviation: classes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from guards.detector import I8
from guards.rows import F8

CONCENTRATION: Final = 1.0
"""The sum of the Dirichlet parameters: 1 makes most callers send one or two classes."""
WINDOW: Final = 4
"""Of a caller's rows, in bursts: one at once and three at the rate."""
MOST_AT_ONCE: Final = 1000
"""More rows at once are simulated by so many: a mean over fewer rows varies more."""


def simulated_burst(rows: int) -> int:
    """How many rows a simulated caller sends at once for one that sends `rows`."""
    return min(rows, MOST_AT_ONCE)


def windows(classes: I8, callers: int, rows: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """The rows of each caller in the order in which it sends them: intp[4 * simulated_burst(rows)].

    Args:    classes: int64[n], n >= 1, of the held-out rows; zeros where there are none.
    Cost:    a caller 0.4 ms for 4,000 of 3,000 rows.
    """
    n, length = len(classes), WINDOW * simulated_burst(rows)
    order = np.argsort(classes, kind="stable")
    _, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
    for _ in range(callers):
        mixture = rng.dirichlet(CONCENTRATION * counts / n)
        weights = rng.exponential(size=n)
        weights *= np.repeat(mixture / np.add.reduceat(weights, starts), counts)
        edges = np.cumsum(weights)
        drawn = np.searchsorted(edges, rng.random(length) * edges[-1], "right")
        yield order[np.minimum(drawn, n - 1)]


def needed(costs: F8, classes: I8, callers: int, rows: int, rng: np.random.Generator) -> F8:
    """float64[callers]: the least mean price that the budget of each caller has to hold for a row.

    Args:    costs: float64[n], what each held-out row costs; their mean is charged at first; others as
             `windows`.
    """
    burst, expected = simulated_burst(rows), float(costs.mean())
    drawn = windows(classes, callers, rows, rng)
    return np.array([needed_by(costs[at], burst, expected) for at in drawn])


def needed_by(costs: F8, burst: int, expected: float) -> float:
    """Of one caller, whose rows cost so much. At most a hundredth too much, where a later run decides."""
    spent, sent = np.cumsum(costs), np.arange(1, len(costs) + 1)
    at_once = expected + max(0.0, float((spent - expected * sent)[:burst].max()) / burst)
    ended, later = spent[burst - 1 : -1], sent[burst:]
    charged = ended + np.maximum(costs[burst:], expected)
    least = max(at_once, float((charged / later).max()))
    while True:
        since_full = np.minimum.accumulate(ended - least * (later - 1))
        if (charged - least * later - since_full).max() <= least * (burst - 1):
            return least
        least *= 1.01
