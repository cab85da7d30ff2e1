"""The residual is what principal component analysis leaves over."""

from __future__ import annotations

import numpy as np
import pytest

from guards.residual import Residual
from guards.rows import F8, Signals

RNG = np.random.default_rng(0)


def only(h: F8) -> Signals:
    return Signals(h.astype(np.float32), h.astype(np.float32))


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
    with pytest.raises(ValueError, match="residual: the features to fit on are all alike"):
        fit(np.ones((50, 3)))
