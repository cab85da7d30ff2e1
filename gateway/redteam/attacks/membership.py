"""Whether a row was in the training data, told from how the model answers it.

| score | from | source |
|---|---|---|
| quantile | how far the margin of its class is above what such a row has | Bertran et al., NeurIPS 2023 |
| label only | the share of noisy copies that keep their answer | Choquette-Choo et al., ICML 2021 |

Deviations of the first: `quantile.py`. The class is the file's, or the answer's where it has none. Copies
stay on the lattice of the samples. A copy without an answer counts as changed; for the label alone, a row
that is answered wrongly or not at all is a non-member.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import Answer
from gateway.redteam.space import Space

FALSE_POSITIVES, CLIP = 0.001, 1e-6
COPIES, NOISES = 8, (0.05, 0.1)
"""Copies of a row at each standard deviation of noise: of the pixel range, or ten times that in a table."""
TABLE_FACTOR = 5.0
WIDEST = float(np.log((1 - CLIP) / CLIP))

Ask = Callable[[F8], Answer]


def log_margin(answer: Answer, y: int | None) -> float:
    """The logarithm of the class's probability over the largest other one, as disclosed; probabilities below
    1e-6 count as 1e-6. Of a label alone the widest margin; where there is no answer, the least.
    """
    if answer.label is None or y is None:
        return -WIDEST
    if answer.p is None or y >= len(answer.p):
        return WIDEST if answer.label == y else -WIDEST
    own, others = float(answer.p[y]), np.delete(answer.p, y)
    return float(np.log(np.clip(own, CLIP, 1 - CLIP)) - np.log(np.clip(others.max(), CLIP, 1 - CLIP)))


def robustness(row: F8, label: int | None, space: Space, ask: Ask, rng: np.random.Generator) -> float:
    """The share of noisy copies whose answer is the label; one query a copy. Ties are broken by chance."""
    factor = 1.0 if space.picture is not None else TABLE_FACTOR
    on_grid = space.on_lattice()
    noises = [noise * factor for noise in NOISES for _ in range(COPIES)]
    kept = [
        ask(on_grid.clip(row + noise * rng.standard_normal(space.size))).label == label for noise in noises
    ]
    return float(np.mean(kept)) + 1e-6 * float(rng.random())


def tpr(members: F8, others: F8, false_positives: float = FALSE_POSITIVES) -> float | None:
    """The share of members above the least threshold that at most this share of non-members exceed.

    Below 1 / false_positives non-members that is the largest of them. None without rows of both.
    """
    if not len(members) or not len(others):
        return None
    ranked = np.sort(others)[::-1]
    return float((members > ranked[min(int(false_positives * len(ranked)), len(ranked) - 1)]).mean())


def auc(members: F8, others: F8) -> float | None:
    """P(a member scores above a non-member), ties half; None without rows of both."""
    if not len(members) or not len(others):
        return None
    ranked = np.sort(others)
    both = np.searchsorted(ranked, members, "left") + np.searchsorted(ranked, members, "right")
    return float(both.mean() / 2 / len(ranked))
