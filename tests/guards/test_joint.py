"""Joint: a row is judged by how its values go together, and a missing value by what the others say."""

from __future__ import annotations

import numpy as np
import pytest

from guards.joint import Joint
from guards.rows import F8

RNG = np.random.default_rng(0)
N = 2000


def related(n: int) -> F8:
    """a, b = a with a little noise, c = (a + d) / sqrt(2) exactly, d: all of unit variance."""
    a, d = RNG.standard_normal((2, n))
    return np.stack([a, 0.995 * a + 0.1 * RNG.standard_normal(n), (a + d) / 2**0.5, d], 1)


X = related(N)
HERE = np.ones(X.shape, np.bool_)
JOINT = Joint.fit(X, HERE, np.zeros(N, np.int64), 0)


def test_the_distance_is_that_of_mahalanobis_where_columns_do_not_determine_each_other() -> None:
    x = X[:, [0, 1, 3]]
    joint = Joint.fit(x, HERE[:, :3], np.zeros(N, np.int64), 0)
    covariance = x.T @ x / N + 1e-3 * np.eye(3)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x))
    np.testing.assert_allclose(joint.distances(x, HERE[:, :3])[1], expected)


def test_the_others_predict_each_value() -> None:
    errors = JOINT.errors(X)
    assert np.quantile(errors, 0.99) < 4
    broken = X[:20].copy()
    broken[:, 3] += 1.0
    assert JOINT.errors(broken)[:, [0, 2, 3]].min() > 5


def test_a_missing_value_is_what_the_others_say_if_some_were_missing_in_fit() -> None:
    gone = RNG.random(X.shape) < 0.1
    joint = Joint.fit(np.where(gone, 0.0, X), ~gone, np.zeros(N, np.int64), 0)
    assert joint.gaps
    fresh = related(500)
    here = np.ones(fresh.shape, np.bool_)
    usual = np.quantile(joint.distances(fresh, here)[1], 0.99)
    here[:, 1] = False
    assert (joint.distances(np.where(here, fresh, 0.0), here)[1] > 1.2 * usual).mean() < 0.01


def test_values_dropped_from_a_row_are_settled_together() -> None:
    row = X[0].copy()
    drop = np.array([True, True, False, False])
    row[:2] = 50.0
    settled = JOINT.without(row, drop)
    assert settled == pytest.approx(X[0], abs=0.2)
    np.testing.assert_array_equal(JOINT.without(row, np.zeros(4, np.bool_)), row)
    assert JOINT.without(row, np.ones(4, np.bool_)) == pytest.approx([0, 0, 0, 0])
