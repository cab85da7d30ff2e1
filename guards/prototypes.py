"""Prototypes: k-means++ and Lloyd steps within each class, and the search for the nearest prototype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from guards.atoms import FLOAT32_NOISE
from guards.detector import I8
from guards.rows import F8

LLOYD_STEPS = 5


def prototypes(x: F8, y: I8, m: int, seed: int) -> tuple[F8, I8]:
    """Cluster centres of x, the same number for each class, and their classes.

    Args:    x: float64[n, d]; y: int64[n]; m: centres in all, at least one per class; seed: of the draws.
    Returns: (float64[c, d], int64[c]), classes ascending; c <= max(m, classes), fewer where a class has
             fewer distinct rows.
    Cost:    O(n m d / k) for k classes, at fit only.
    Source:  Arthur and Vassilvitskii, SODA 2007. Deviation: per class; five Lloyd steps instead of
             convergence.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(y)
    each = m // len(classes)
    found = [_lloyd(rows, _kmeans_plus_plus_seeds(rows, each, rng)) for rows in (x[y == c] for c in classes)]
    labels = np.repeat(classes, [len(centres) for centres in found]).astype(np.int64)
    return np.concatenate(found), labels


def _kmeans_plus_plus_seeds(x: F8, m: int, rng: np.random.Generator) -> F8:
    """Seeds, float64[<= m, d]: each drawn in proportion to its squared distance from the nearest so far."""
    chosen = [int(rng.integers(len(x)))]
    squared = np.square(x - x[chosen[0]]).sum(1)
    same = np.square(FLOAT32_NOISE) * np.vecdot(x, x).max()
    while len(chosen) < m and squared.max() > same:
        mass = np.cumsum(squared)
        chosen.append(min(int(np.searchsorted(mass, rng.random() * mass[-1], "right")), len(x) - 1))
        squared = np.minimum(squared, np.square(x - x[chosen[-1]]).sum(1))
    return np.asarray(x[chosen], np.float64)


def _lloyd(x: F8, centres: F8) -> F8:
    """Move each centre to the mean of its rows, five times; a centre without rows stays."""
    for _ in range(LLOYD_STEPS):
        owner = proximity(x, centres, half_squared_norms(centres)).argmax(1)
        count = np.bincount(owner, minlength=len(centres))
        total = np.zeros_like(centres)
        np.add.at(total, owner, x)
        centres = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centres)
    return centres


def half_squared_norms(centres: NDArray[Any]) -> NDArray[Any]:
    """|c|^2 / 2 of each centre, in its own dtype."""
    return np.asarray(np.vecdot(centres, centres) / 2, centres.dtype)


def proximity(x: NDArray[Any], centres: NDArray[Any], halves: NDArray[Any]) -> NDArray[Any]:
    """x.c - |c|^2/2 for every row and centre, [n, m]: largest for the nearest centre. One matrix product."""
    close: NDArray[Any] = x @ centres.T - halves
    return close


def distance(x: F8, centres: NDArray[Any], which: NDArray[np.intp]) -> F8:
    """float64[n]: from each row to centre `which`, int[n]; by subtraction, so that nothing cancels."""
    difference = x - np.take_along_axis(centres, which[:, None], 0)
    length: F8 = np.sqrt(np.vecdot(difference, difference))
    return length
