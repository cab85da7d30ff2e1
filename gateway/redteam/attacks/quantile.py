"""How unusually high the score of a row is for one that was not trained on: regressed on the row itself.

Source:  Bertran, Tang, Roth, Kearns, Morgenstern, Wu: Scalable membership inference attacks via quantile
         regression, NeurIPS 2023. No shadow models: the scores of rows that are known to be no members teach
         which score to expect of a row, and a member is one that exceeds the expected quantile.

Deviations: mean and variance of a Gaussian, as the paper has them for small false-positive rates, but each is
linear in the row's standardised columns and its class (ridge regression, its strength chosen by the error of
leaving one out), and not a network: a few hundred rows teach no more. Non-members are shared out in five
parts; each row is judged by a fit on four of them, never by one that has seen it, and members by each fit
in turn, so that rows of both kinds are judged alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.core.rows import F8

PARTS, LEAST = 5, 20
STRENGTHS = np.geomspace(1e-2, 1e6, 25)
FLOOR = 0.05
"""Of the variance of all scores: what is added to a squared error before its logarithm."""


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """A regression. weights: float64[p]; out_of_sample: float64[n], the errors of rows when left out."""

    mean: F8
    weights: F8
    offset: float
    out_of_sample: F8

    @classmethod
    def fit(cls, z: F8, y: F8) -> Ridge:
        """Of y, float64[n], on z, float64[n, p]. Cost: O(n p min(n, p))."""
        mean, offset = z.mean(axis=0), float(y.mean())
        u, d, vt = np.linalg.svd(z - mean, full_matrices=False)
        along, best = u.T @ (y - offset), None
        for strength in STRENGTHS:
            kept = d**2 / (d**2 + strength)
            leverage = np.minimum(1 / len(y) + (u**2) @ kept, 1 - 1e-6)
            errors = (y - offset - u @ (kept * along)) / (1 - leverage)
            if best is None or (errors**2).sum() < (best[1] ** 2).sum():
                best = (strength, errors)
        assert best is not None
        weights = vt.T @ (d / (d**2 + best[0]) * along)
        return cls(mean, weights, offset, best[1])

    def of(self, z: F8) -> F8:
        """float64[m]."""
        return np.asarray((z - self.mean) @ self.weights + self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The score to expect of a row that is no member, and how far it varies."""

    score: Ridge
    log_variance: Ridge
    scale: float

    @classmethod
    def fit(cls, z: F8, scores: F8) -> Expected:
        """On non-members alone: z as of `features`, scores float64[n]."""
        score = Ridge.fit(z, scores)
        squared = score.out_of_sample**2
        log_variance = Ridge.fit(z, np.log(squared + FLOOR * float(scores.var()) + 1e-12))
        ratio = squared / np.exp(log_variance.of(z))
        return cls(score, log_variance, float(np.sqrt(ratio.mean() + 1e-12)))

    def exceeded(self, z: F8, scores: F8) -> F8:
        """float64[m]: by how many deviations each score is above that to expect."""
        return np.asarray((scores - self.score.of(z)) / (np.exp(self.log_variance.of(z) / 2) * self.scale))


def features(x: F8, y: NDArray[np.intp], of: F8) -> F8:
    """float64[n, d + k]: rows standardised by those of `of`, and their classes, one column each."""
    classes = np.eye(max(1, int(y.max(initial=0)) + 1))[np.maximum(y, 0)]
    return np.hstack([(x - of.mean(axis=0)) / np.maximum(of.std(axis=0), 1e-3), classes])


def exceedances(z: F8, scores: F8, member: NDArray[np.bool_], rng: np.random.Generator) -> tuple[F8, F8]:
    """How unusual the score of each member is, and of each other row; the scores themselves of fewer than
    20 others.

    Args:    z: float64[n, p], as of `features`; scores: float64[n]; member: bool[n]; rng: shares rows out.
    """
    inside, outside = np.flatnonzero(member), np.flatnonzero(~member)
    if len(outside) < LEAST:
        return scores[inside], scores[outside]
    inside_part, outside_part = (rng.permutation(len(one)) % PARTS for one in (inside, outside))
    found = np.empty(len(scores))
    for part in range(PARTS):
        taught = outside[outside_part != part]
        expected = Expected.fit(z[taught], scores[taught])
        judged = np.concatenate([inside[inside_part == part], outside[outside_part == part]])
        found[judged] = expected.exceeded(z[judged], scores[judged])
    return found[inside], found[outside]
