"""GEN against its formula, where float64 can compute that, and against its closed form where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.gen import Gen
from guards.rows import F8, Signals


def score(z: F8) -> F8:
    signals = Signals(None, z=z.astype(np.float32))
    return Gen(z.shape[1]).score(signals)


def naive(z: F8, top: int = 100) -> F8:
    p = np.exp(z - z.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    p = np.sort(p, 1)[:, ::-1][:, :top]
    return np.asarray(((p * (1 - p)) ** 0.1).sum(1))


@given(st.integers(2, 12), st.integers(0, 10**6), st.floats(0.01, 3))
def test_equals_the_formula_on_moderate_logits(k: int, seed: int, scale: float) -> None:
    z = (scale * np.random.default_rng(seed).standard_normal((5, k))).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(score(z), naive(z), rtol=1e-9)


def test_sums_over_the_hundred_likeliest_classes_only() -> None:
    z = np.random.default_rng(0).standard_normal((4, 150)).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(score(z), naive(z), rtol=1e-9)
    assert (score(z) < naive(z, 101) - 1e-3).all()


@pytest.mark.parametrize("margin", [1.0, 17.0, 40.0, 800.0, 5000.0])
def test_two_classes_follow_the_closed_form_beyond_where_p_saturates(margin: float) -> None:
    log_p, log_not_p = -np.log1p(np.exp(-margin)), -margin - np.log1p(np.exp(-margin))
    np.testing.assert_allclose(
        score(np.array([[margin, 0.0]])), 2 * np.exp(0.1 * (log_p + log_not_p)), rtol=1e-12
    )


def test_ranks_rows_whose_float32_probability_is_exactly_one() -> None:
    z = np.array([[m, 0.0, -1.0] for m in (20.0, 30.0, 60.0, 120.0, 400.0)])
    assert (np.float32(1) / (1 + np.exp(-z[:, 0]).astype(np.float32)) == 1).all()
    assert (np.diff(score(z)) < 0).all()
    assert (score(z) > 0).all()


def test_is_largest_for_the_uniform_answer_and_ignores_a_shift() -> None:
    z = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    uniform, peaked = score(z)
    assert uniform == pytest.approx(4 * (0.25 * 0.75) ** 0.1)
    assert peaked < uniform
    np.testing.assert_allclose(score(z + 8), score(z), rtol=1e-12)


def test_one_class_is_refused() -> None:
    signals = Signals(None, z=np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="gen: needs two or more classes"):
        Gen.fit(signals, np.zeros(3, np.int64), seed=0)
