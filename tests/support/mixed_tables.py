"""Tables as models of businesses and machines read them: columns of many kinds, categories, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Inputs: TypeAlias = dict[str, NDArray[Any]]
Draw: TypeAlias = Callable[[np.random.Generator, int], Inputs]


def texts(values: Sequence[bytes]) -> NDArray[Any]:
    """object[n] of bytes."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def categories(rng: np.random.Generator, n: int, shares: Sequence[float]) -> NDArray[Any]:
    """object[n]: categories with the given shares, scaled to sum to one."""
    p = np.asarray(shares, np.float64)
    return texts([b"category %d" % i for i in rng.choice(len(p), n, p=p / p.sum())])


def churn(rng: np.random.Generator, n: int) -> Inputs:
    """Five columns."""
    return {
        "age": rng.integers(18, 90, n),
        "tenure": rng.normal(100, 20, n),
        "income": rng.lognormal(10, 0.35, n),
        "plan": categories(rng, n, [6, 3, 1]),
        "country": categories(rng, n, [50, 30, 10, 7, 3]),
    }


def machine(rng: np.random.Generator, n: int) -> Inputs:
    """Nine columns of three operating states, two of them tied to others."""
    state = rng.integers(0, 3, n)
    x = rng.standard_normal((n, 2)) + state[:, None]
    return {
        "pressure": x[:, 0],
        "flow": x[:, 1].astype(np.float16),
        "total": x.sum(1),
        "power": (2 * x[:, 0] + 0.05 * rng.standard_normal(n)).astype(np.float32),
        "duration": rng.exponential(100, n) ** 0.5,
        "starts": rng.poisson(1 + state),
        "valve": rng.random(n) < 0.5,
        "hours": rng.uniform(0, 24, n),
        "site": categories(rng, n, [1] * 8),
    }


def credit(rng: np.random.Generator, n: int) -> Inputs:
    """Twenty columns, two of them with heavy tails: `assets` and `claims`."""
    a, age = rng.standard_normal(n), np.clip(rng.normal(45, 12, n), 18, None)
    return {
        "age": age,
        "income": rng.lognormal(10, 0.35, n),
        "assets": rng.lognormal(3, 1.5, n),
        "claims": rng.pareto(1.5, n),
        "score": a,
        "score_percent": 3 * a + 7,
        "score_and_age": a + age,
        "children": rng.poisson(1.5, n),
        "visits": rng.poisson(20, n),
        "married": rng.random(n) < 0.4,
        "disputed": rng.random(n) < 0.03,
        "rate": rng.normal(280, 5, n) + 3 * a,
        "version": np.full(n, 7.0),
        "rating": rng.integers(1, 6, n),
        "gain": np.where(rng.random(n) < 0.1, np.round(rng.lognormal(7, 0.3, n)), 0),
        "seconds": rng.gamma(6, 50, n).astype(np.float32),
        "year": rng.integers(1990, 2024, n),
        "plan": categories(rng, n, [6, 3, 1]),
        "country": categories(rng, n, [float(share) for share in 0.75 ** np.arange(20)]),
        "share": rng.uniform(0, 1, n),
    }


WORLDS: Mapping[str, Draw] = {"churn": churn, "machine": machine, "credit": credit}
HEAVY = ("assets", "claims")
"""Ten robust sigmas are inside the bulk of these: 4 to 5 % of good rows exceed them."""


def planted(column: NDArray[Any], side: float) -> NDArray[Any]:
    """The column with an outlier in every row: ten robust sigmas from the median, or an unseen category.

    A robust sigma is 1.4826 median absolute deviations, or the standard deviation where that is 0 (one for a
    constant). Outliers among whole numbers are whole.
    """
    if column.dtype == object:
        return texts([b"unseen"] * len(column))
    x = column.astype(np.float64)
    sigma = 1.4826 * np.median(np.abs(x - np.median(x))) or x.std() or 1.0
    value = np.median(x) + side * 10 * sigma
    whole = bool((x == np.rint(x)).all())
    return np.full(len(x), side * np.ceil(side * value) if whole else value)
