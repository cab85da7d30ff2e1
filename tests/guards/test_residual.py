"""The residual is what principal component analysis leaves over."""

from __future__ import annotations

import numpy as np
import pytest

from guards.residual import Residual
from guards.rows import F8, Signals

RNG = np.random.default_rng(0)


def only(h: F8) -> Signals:
    return Signals(None, h=h.astype(np.float32))


def fit(h: F8) -> Residual:
    return Residual.fit(only(h), np.zeros(len(h), np.int64), seed=0)


def test_is_the_height_above_a_plane() -> None:
    plane = RNG.standard_normal((500, 3)) * [1, 1, 0] + [1.0, 2.0, 3.0]
    scores = fit(plane).score(only(np.array([[1.0, 2.0, 3.0], [4.0, 7.0, 3.5], [1.0, 2.0, -1.0]])))
    np.testing.assert_allclose(scores, [0.0, 0.5, 4.0], atol=1e-6)
    assert fit(plane).score(only(plane)).max() == 0.0, "rounding is not a residual"


def test_keeps_the_fewest_directions_that_explain_95_percent() -> None:
    h = RNG.standard_normal((2000, 4)) * np.sqrt([60.0, 30.0, 8.0, 2.0])
    fitted = fit(h)
    assert fitted.basis.shape == (3, 4)
    fresh = RNG.standard_normal((20, 4))
    values, vectors = np.linalg.eigh(np.cov(h.astype(np.float32).T))
    expected = np.abs((fresh - h.mean(0)) @ vectors[:, 0])
    np.testing.assert_allclose(fitted.score(only(fresh)), expected, rtol=1e-4, atol=1e-5)
    assert values[0] < values[-1]


def test_never_keeps_every_direction() -> None:
    assert fit(RNG.standard_normal((50, 3))).basis.shape == (2, 3)
    line = fit(RNG.standard_normal((50, 1)))
    np.testing.assert_allclose(line.score(only(np.array([[9.0]]))), abs(9.0 - line.mu), rtol=1e-6)


def test_features_all_alike_are_refused() -> None:
    for constant in (1.0, 0.1, 4012345679.0):
        with pytest.raises(ValueError, match="residual: the features to fit on are all alike"):
            fit(np.full((50, 3), constant))


def test_rises_from_its_rounding_threshold_without_a_jump() -> None:
    plane = RNG.standard_normal((500, 3)) * [10, 10, 0] + [100.0, 200.0, 300.0]
    fitted = fit(plane)
    heights = np.linspace(0, 3e-3, 301)  # the threshold is 3.7e-4
    h = np.stack([np.full(301, 100.0), np.full(301, 200.0), fitted.mu[2] + heights], 1)
    scores = fitted.score(Signals(None, h=h))
    assert scores[:30].max() == 0.0
    assert np.diff(scores).min() >= 0
    assert np.diff(scores).max() <= 2.1e-5
    assert scores[-1] == pytest.approx(3e-3, rel=0.03)
