"""RMD through k-1 directions equals the difference of two full Mahalanobis distances."""

from __future__ import annotations

import numpy as np
import pytest

from guards.rmd import Rmd
from guards.rows import F8, Signals
from guards.shrinkage import shrunk_covariance
from tests.support.guard_world import D, K, world


def naive(h: F8, y: F8, rows: F8) -> F8:
    """min_c MD_c - MD_all with S_t = S_w + between-class scatter, by inverting d x d matrices."""
    h, rows = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (h, rows))
    means = np.stack([h[y == c].mean(0) for c in range(K)])
    share = np.bincount(y.astype(int)) / len(y)
    mu = h.mean(0)
    within = shrunk_covariance(h - means[y.astype(int)])
    total = within + (means - mu).T @ np.diag(share) @ (means - mu)
    own = [np.einsum("nd,de,ne->n", rows - m, np.linalg.inv(within), rows - m) for m in means]
    whole = np.einsum("nd,de,ne->n", rows - mu, np.linalg.inv(total), rows - mu)
    return np.asarray(np.min(own, 0) - whole)


def features(s: Signals) -> F8:
    assert s.h is not None
    return s.h.astype(np.float64)


def only(h: F8) -> Signals:
    return Signals(None, h=h.astype(np.float32))


def test_equals_the_difference_of_two_full_mahalanobis_distances() -> None:
    s, y = world(1, 300)
    keep = (y != 2) | (np.arange(300) % 3 == 0)  # unbalanced, so that the class shares matter
    s, y = only(features(s)[keep]), y[keep]
    fresh = features(world(2, 50)[0])
    scores = Rmd.fit(s, y, seed=0).score(only(fresh))
    np.testing.assert_allclose(scores, naive(features(s), y.astype(float), fresh), rtol=1e-6, atol=1e-6)


def test_needs_two_k_minus_one_rows_and_no_square_matrix() -> None:
    s, y = world(1, 300)
    assert Rmd.fit(s, y, seed=0).rows.shape == (K + K - 1, D)


def test_labels_need_not_be_consecutive() -> None:
    s, y = world(1, 300)
    np.testing.assert_allclose(
        Rmd.fit(s, 10 * y - 5, seed=0).score(s), Rmd.fit(s, y, seed=0).score(s), rtol=1e-12
    )


def test_fewer_classes_than_the_model_has_are_enough() -> None:
    s, y = world(1, 300)
    some = y < 2
    fitted = Rmd.fit(only(features(s)[some]), y[some], seed=0)
    assert fitted.rows.shape == (3, D)
    usual = fitted.score(only(features(s)[some]))
    assert np.median(fitted.score(only(features(s)[~some]))) > np.quantile(usual, 0.9)


def test_is_blind_to_the_length_of_the_features() -> None:
    s, y = world(1, 300)
    fitted = Rmd.fit(s, y, seed=0)
    np.testing.assert_allclose(fitted.score(only(4 * features(s))), fitted.score(s), rtol=1e-6, atol=1e-6)


def test_one_class_and_constant_features_are_refused() -> None:
    s, y = world(1, 60)
    with pytest.raises(ValueError, match="rmd: the labels hold one class only"):
        Rmd.fit(s, np.zeros_like(y), seed=0)
    with pytest.raises(ValueError, match="all alike"):
        Rmd.fit(only(np.ones((60, D))), y, seed=0)
    rounding = 1 + 1e-7 * np.random.default_rng(0).uniform(-1, 1, (60, D))
    with pytest.raises(ValueError, match="all alike"):
        Rmd.fit(only(0.1 * rounding), y, seed=0)
