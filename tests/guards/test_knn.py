"""kNN: the float32 search finds what brute force finds; disagreement is zero where the classes agree."""

from __future__ import annotations

import numpy as np
import pytest

from guards.knn import Knn
from guards.rows import F8, Signals
from tests.support.guard_world import D, K, world


def only(h: F8) -> Signals:
    return Signals(None, h=h.astype(np.float32))


def features(seed: int, n: int) -> F8:
    s, _ = world(seed, n)
    assert s.h is not None
    return s.h.astype(np.float64)


def test_equals_brute_force_over_the_prototypes() -> None:
    s, y = world(1, 300)
    fitted = Knn.fit(s, y, seed=0, m=64)
    assert fitted.centres.shape == (64, D)
    h = features(2, 80)
    apart = np.linalg.norm(
        (h / np.linalg.norm(h, axis=1, keepdims=True))[:, None] - fitted.centres[None], axis=2
    )
    np.testing.assert_allclose(fitted.score(only(h)), apart.min(1), rtol=1e-7)
    predicted = np.arange(80) % K
    own = np.where(fitted.labels == predicted[:, None], apart, np.inf).min(1)
    expected = np.where(fitted.labels[apart.argmin(1)] == predicted, 0.0, own - apart.min(1))
    np.testing.assert_allclose(fitted.disagreement(h, predicted), expected, rtol=1e-6)


def test_disagreement_is_zero_exactly_where_the_nearest_class_is_the_predicted_one() -> None:
    s, y = world(1, 300)
    fitted = Knn.fit(s, y, seed=0)
    assert (fitted.disagreement(features(1, 300), y) == 0).mean() > 0.95
    wrong = fitted.disagreement(features(1, 300), (y + 1) % K)
    assert (wrong > 0).mean() > 0.95
    assert (wrong >= 0).all()


def test_a_predicted_class_without_prototypes_disagrees_with_everything() -> None:
    s, y = world(1, 300)
    fitted = Knn.fit(s, y, seed=0)
    unknown = fitted.disagreement(features(2, 20), np.full(20, 17))
    known = np.max([fitted.disagreement(features(2, 20), np.full(20, c)) for c in range(K)], 0)
    assert (unknown >= known).all()
    assert (unknown > 0).all()


def test_a_row_that_was_its_own_prototype_is_at_distance_zero() -> None:
    h = np.repeat(np.eye(3), 4, 0)
    fitted = Knn.fit(only(h), np.repeat([0, 1, 2], 4), seed=0)
    np.testing.assert_allclose(
        fitted.score(only(np.array([[0.0, 5.0, 0.0], [1.0, 1.0, 0.0]]))), [0, (2 - 2**0.5) ** 0.5], atol=1e-7
    )
    np.testing.assert_allclose(fitted.disagreement(np.array([[0.0, 5.0, 0.0]]), np.array([2])), [2**0.5])


def test_no_prototypes_are_refused() -> None:
    s, y = world(1, 30)
    with pytest.raises(ValueError, match="needs one prototype or more, not 0"):
        Knn.fit(s, y, seed=0, m=0)
