"""fDBD against its formula with the true head, and what makes it refuse to guess a head."""

from __future__ import annotations

import numpy as np
import pytest

from guards.fdbd import Fdbd
from guards.rows import F8, Signals
from tests.support.guard_world import world

RNG = np.random.default_rng(3)
W, B = RNG.standard_normal((5, 8)), RNG.standard_normal(5)
Y = RNG.integers(0, 5, 200)


def signals(h: F8) -> Signals:
    return Signals(None, h=h.astype(np.float32), z=(h @ W.T + B).astype(np.float32))


def naive(h: F8, mu: F8) -> F8:
    scores = []
    for row in h:
        z = W @ row + B
        top = int(z.argmax())
        far = [(z[top] - z[j]) / np.linalg.norm(W[top] - W[j]) for j in range(5) if j != top]
        scores.append(-np.mean(far) / np.linalg.norm(row - mu))
    return np.array(scores)


def test_equals_the_formula_with_the_true_head_that_it_estimated() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    fitted = Fdbd.fit(signals(h), Y, seed=0)
    fresh = RNG.standard_normal((50, 8)) + 2
    np.testing.assert_allclose(fitted.score(signals(fresh)), naive(fresh, h.mean(0)), rtol=1e-4)


def test_a_row_on_a_boundary_of_two_classes_is_more_suspicious_than_one_deep_inside() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    fitted = Fdbd.fit(signals(h), Y, seed=0)
    inside = Signals(
        None,
        h=np.full((2, 8), 5, np.float32),
        z=np.array([[9, 0, 0, 0, 0], [1, 1, 0, 0, 0]], np.float32),
    )
    deep, edge = fitted.score(inside)
    assert deep < edge < 0


def test_features_that_never_fire_do_no_harm() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    h[:, 3] = 0
    fitted = Fdbd.fit(signals(h), Y, seed=0)
    fresh = RNG.standard_normal((20, 8)) + 2
    fresh[:, 3] = 0
    flat = W.copy()
    flat[:, 3] = 0  # the least-squares head on the span of what fires
    gaps = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    z = fresh @ W.T + B
    top = z.argmax(1)
    others = np.arange(5) != top[:, None]
    mean = (((z.max(1, keepdims=True) - z) / np.where(others, gaps[top], 1)) * others).sum(1) / 4
    expected = -mean / np.linalg.norm(fresh - h.mean(0), axis=1)
    np.testing.assert_allclose(fitted.score(signals(fresh)), expected, rtol=1e-4)


def test_a_row_at_the_mean_feature_is_finite_and_unsuspicious() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    fitted = Fdbd.fit(signals(h), Y, seed=0)
    mean = fitted.mu[None].astype(np.float32)
    centre = Signals(None, h=mean, z=W[:, :1].T.astype(np.float32))
    assert np.isfinite(fitted.score(centre)).all()
    assert fitted.score(centre)[0] < -1e3


def test_two_classes_with_the_same_head_row_leave_the_others_their_distances() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    z = (h @ W.T + B).astype(np.float32)
    z[:, 4] = z[:, 3]
    twin = Signals(None, h=h.astype(np.float32), z=z)
    fitted = Fdbd.fit(twin, Y, seed=0)
    assert np.isfinite(fitted.score(twin)).all()
    assert fitted.weights[3, 4] == 0
    assert fitted.weights[0, 4] == pytest.approx(1 / np.linalg.norm(W[0] - W[3]) / 4, rel=1e-4)


def test_features_that_are_not_the_layer_before_the_head_are_refused() -> None:
    h = RNG.standard_normal((200, 8)) + 2
    good = signals(h)
    assert good.h is not None
    assert good.z is not None
    with pytest.raises(ValueError, match="fdbd: logits are not affine in the features"):
        Fdbd.fit(Signals(None, h=good.h, z=np.maximum(good.z, 0)), Y, seed=0)
    with pytest.raises(ValueError, match=r"not affine .* left over"):
        Fdbd.fit(Signals(None, h=np.tanh(good.h), z=good.z), Y, seed=0)


def test_half_precision_features_are_still_the_layer_before_the_head() -> None:
    good = signals(RNG.standard_normal((200, 8)) + 2)
    assert good.h is not None
    coarse = good.h.astype(np.float16).astype(np.float32)
    assert np.isfinite(Fdbd.fit(Signals(None, h=coarse, z=good.z), Y, seed=0).score(good)).all()


def test_needs_more_rows_than_it_could_fit_by_chance() -> None:
    s, y = world(1, 25)  # d is 12
    with pytest.raises(ValueError, match="25 rows to fit on, needs at least 26"):
        Fdbd.fit(s, y, seed=0)
    s, y = world(1, 26)
    Fdbd.fit(s, y, seed=0)


def test_rows_of_features_and_logits_must_match() -> None:
    s, y = world(1, 200)
    fitted = Fdbd.fit(s, y, seed=0)
    assert s.z is not None
    with pytest.raises(ValueError, match="200 rows of features but 1 of logits"):
        fitted.score(Signals(None, h=s.h, z=s.z[:1]))
    with pytest.raises(ValueError, match=r"logits have shape \[1, 4\], expected \[200"):
        Fdbd.fit(Signals(None, h=s.h, z=s.z[:1]), y, seed=0)
