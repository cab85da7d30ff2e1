"""Ledoit-Wolf against its definition, term by term."""

from __future__ import annotations

import numpy as np
import pytest

from guards.rows import F8
from guards.shrinkage import shrunk_covariance


def naive(x: F8) -> F8:
    n, d = x.shape
    sample = sum(np.outer(row, row) for row in x) / n
    scale = np.trace(sample) / d
    distance = ((sample - scale * np.eye(d)) ** 2).sum()
    noise = min(sum(((np.outer(row, row) - sample) ** 2).sum() for row in x) / n**2, distance)
    weight = noise / distance
    return np.asarray(weight * scale * np.eye(d) + (1 - weight) * sample)


@pytest.mark.parametrize(("n", "d"), [(200, 3), (30, 8), (5, 20)])
def test_equals_the_definition_up_to_the_ridge(n: int, d: int) -> None:
    x = np.random.default_rng(n).standard_normal((n, d)) * np.linspace(1, 5, d)
    ridge = 1e-6 * np.trace(x.T @ x / n) / d * np.eye(d)
    np.testing.assert_allclose(shrunk_covariance(x), naive(x) + ridge, rtol=1e-9, atol=1e-12)


def test_can_be_inverted_with_fewer_rows_than_columns_and_with_dead_columns() -> None:
    x = np.random.default_rng(0).standard_normal((5, 20))
    assert np.linalg.eigvalsh(shrunk_covariance(x)).min() > 0
    wide = np.random.default_rng(0).standard_normal((100_000, 3)) * [1, 1, 0]
    assert np.linalg.eigvalsh(shrunk_covariance(wide)).min() >= 1e-7


def test_one_column_is_its_variance() -> None:
    np.testing.assert_allclose(shrunk_covariance(np.array([[1.0], [-1.0]])), [[1 + 1e-6]])


def test_nothing_varies() -> None:
    with pytest.raises(ValueError, match="all alike"):
        shrunk_covariance(np.zeros((10, 3)))
