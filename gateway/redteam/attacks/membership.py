"""Whether a row was in the training data, told from how the model answers it.

| score | from | source |
|---|---|---|
| confidence | log(p_y / (1 - p_y)), against non-members of its class | Carlini et al. (LiRA), IEEE S&P 2022 |
| label only | the share of noisy copies that keep their answer | Choquette-Choo et al., ICML 2021 |

Deviations: no shadow models are trained; the reference of LiRA's Gaussian is a third of the non-members, of
the same class where there are at least eight. The label is the file's, or the answer's where it has none.
Copies stay on the lattice of the samples. A copy without an answer counts as changed, a row without one as
a non-member.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gateway.core.rows import F8, Mask
from gateway.redteam.answers import Answer
from gateway.redteam.space import Space

FALSE_POSITIVES, LEAST_OF_CLASS, CLIP = 0.001, 8, 1e-4
COPIES, NOISES = 8, (0.05, 0.1)
"""Copies of a row at each standard deviation of noise: of the pixel range, or ten times that in a table."""
TABLE_FACTOR = 5.0

Ask = Callable[[F8], Answer]


def logits(answers: list[Answer], y: NDArray[np.intp]) -> F8:
    """float64[n]: log-odds of the label's probability, clipped; the least where there is no answer."""
    least = float(np.log(CLIP / (1 - CLIP)))
    return np.array([least if one.p is None else _log_odds(float(one.p[int(at)]))
                     for one, at in zip(answers, y, strict=True)])  # fmt: skip


def _log_odds(p: float) -> float:
    inside = min(max(p, CLIP), 1 - CLIP)
    return float(np.log(inside / (1 - inside)))


def against(reference: F8, of: NDArray[np.intp], scores: F8, y: NDArray[np.intp]) -> F8:
    """float64[n]: scores in deviations from the reference's rows of the same class."""
    standard = np.empty(len(scores))
    for at in np.unique(y).tolist():
        same = reference[of == at]
        some = same if len(same) >= LEAST_OF_CLASS else reference
        standard[y == at] = (scores[y == at] - some.mean()) / max(float(some.std()), 1e-3)
    return standard


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


def halves(n: int, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """bool[n] twice: a third as reference, the rest to be tested."""
    reference = np.zeros(n, bool)
    reference[rng.permutation(n)[: n // 3]] = True
    return reference, ~reference
