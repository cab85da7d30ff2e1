"""The order of labels, held against the rows: names must stand in the order of the columns of probabilities.

Where a model's file does not name its classes, their order is what the policy says. If most rows of a column
are of another class than the one it is named after, the name is likely another column's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.policy.kinds.rows import Labels

LEAST_ROWS = 10
"""Rows whose likeliest class is a column, from which its name is doubted."""


def likely_order(p: NDArray[np.floating], y: Labels) -> list[int]:
    """For each column of probabilities the class that most of its rows are of.

    Args:    p: float[n, k]; y: int64[n], the classes of the same rows, 0 .. k - 1.
    Returns: a permutation of 0 .. k - 1, the identity where the rows show no other clearly: a column keeps
             its number with fewer than LEAST_ROWS rows, or if no class has more than half of them.
    """
    k = p.shape[1]
    counts = np.zeros((k, k), np.int64)
    np.add.at(counts, (p.argmax(axis=1), y), 1)
    most, rows = counts.argmax(axis=1), counts.sum(axis=1)
    clear = (rows >= LEAST_ROWS) & (2 * counts.max(axis=1) > rows)
    order = np.where(clear, most, np.arange(k)).tolist()
    return order if sorted(order) == list(range(k)) else list(range(k))


def refuse_other_order(p: NDArray[np.floating], y: Labels, labels: Sequence[str]) -> None:
    """Raises ValueError with the likely order if the rows are clearly of other classes than labels say."""
    order = likely_order(p, y)
    moved = [i for i, other in enumerate(order) if i != other]
    if moved:
        first = moved[0]
        what = f"most rows that the model calls {labels[first]!r} are {labels[order[first]]!r} in y"
        better = [labels[i] for i in order]
        raise ValueError(
            f"{what}; labels stand in the order of the columns of probabilities: likely {better}"
        )
