"""Intervals of which only narrow ones leave: q planned for the rows that do.

Rows with narrow intervals can lie outside more often than all rows: with a relative limit, for instance, they
are those of large values. A q planned for all rows then fails the test of those that leave. For a pilot row
two numbers settle both: the least q that holds it, and the largest q with which its interval is still narrow
enough. So the rows that leave, and those among them that lie outside, can be counted for any q.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guards.chance import PASS, chance_to_pass
from guards.interval import Interval
from guards.rows import F8

CANDIDATES = 200


def within_width(
    interval: Interval,
    t: NDArray[Any] | None,
    value: NDArray[Any],
    y: NDArray[Any],
    lower: NDArray[Any] | None,
    upper: NDArray[Any] | None,
    widest: F8,
    r: float,
    delta: float,
    n_test: int,
) -> Interval:
    """The narrowest interval whose rows that may leave pass the later exact test with a chance of 95 %.

    A smaller q lets more rows leave, so the smallest that passes also serves most.

    Args:    interval: fitted; t, value, y, lower, upper: n pilot rows, as in `Interval.fit`. widest:
             float64[n], the width up to which each row's interval leaves, infinite for any. r: the promise
             for rows that leave, delta: the level of its test; n_test: test rows, before the limit.
    Returns: the interval with another q, and the nominal miscoverage of all rows that belongs to it; the q
             with the best chance where none has 95 %.
    Raises:  as `Interval.scores`.
    Cost:    that of the difficulties, and O(n + n_test) for each of 200 candidates.
    """
    scores = interval.scores(t, value, y, lower, upper)
    with np.errstate(over="ignore"):
        narrow_up_to = (widest / scores.size - scores.width) / 2
    n = len(scores.needed)
    counts = np.unique(np.linspace(0, min(n - 1, 2 * r * n), CANDIDATES).astype(int))[::-1]
    found, best = interval, -1.0
    for most in counts.tolist():
        q = scores.factor(most)
        leaves = narrow_up_to >= q
        accepted, errors = int(leaves.sum()), int((scores.needed[leaves] > q).sum())
        tests = round(accepted * n_test / n)
        chance = chance_to_pass(errors, accepted, tests, r, delta) if errors < accepted else 0.0
        if chance > best:
            found, best = replace(interval, q=q, miscoverage=(most + 1) / (n + 1)), chance
        if chance >= PASS:
            break
    return found
