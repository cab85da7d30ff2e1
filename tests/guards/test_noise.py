"""Noise: hears what lies under a quiet picture, and nothing that the picture itself is made of."""

from __future__ import annotations

import numpy as np
import pytest

from guards.noise import OFFSET, Noise
from guards.rows import Signals

RNG = np.random.default_rng(3)


def pictures(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Bright textured squares on black."""
    x = np.zeros((n, 1, 16, 16), np.float32)
    x[:, :, 5:11, 5:11] = RNG.uniform(0.3, 1.0, (n, 1, 6, 6))
    return x


FITTED = Noise.fit(Signals(pictures(20)), np.zeros(20, np.int64), seed=0)


def test_a_quiet_background_scores_the_least_however_rough_the_middle() -> None:
    np.testing.assert_allclose(FITTED.score(Signals(pictures(5))), np.log(OFFSET))


@pytest.mark.parametrize("allowance", [0.02, 0.04, 0.1])
def test_a_signed_disturbance_of_every_pixel_raises_the_floor_with_its_size(allowance: float) -> None:
    x = pictures(50)
    squeezed_score = np.clip(x + allowance * np.sign(RNG.normal(size=x.shape)), 0, 1).astype(np.float32)
    raised = FITTED.score(Signals(squeezed_score)) - FITTED.score(Signals(x))
    assert (raised > 1.0).mean() > 0.9
    fainter = (x + 0.1 * (squeezed_score - x)).astype(np.float32)
    assert (FITTED.score(Signals(squeezed_score)) > FITTED.score(Signals(fainter))).mean() > 0.9


def test_brightness_and_a_shift_leave_it_quiet() -> None:
    x = pictures(20)
    for harmless in (x * np.float32(0.9), np.roll(x, 1, 3)):
        np.testing.assert_allclose(FITTED.score(Signals(harmless)), np.log(OFFSET))


def test_the_number_is_the_mean_laplacian_of_the_quietest_tenth() -> None:
    x = RNG.random((3, 2, 6, 7)).astype(np.float32)
    fitted = Noise.fit(Signals(x), np.zeros(3, np.int64), seed=0)
    for row, score in zip(x.astype(np.float64), fitted.score(Signals(x)), strict=True):
        rough = sorted(
            abs(4 * c[i, j] - c[i - 1, j] - c[i + 1, j] - c[i, j - 1] - c[i, j + 1])
            for c in row
            for i in range(1, 5)
            for j in range(1, 6)
        )
        assert score == pytest.approx(np.log(np.mean(rough[:4]) / fitted.span + OFFSET))


def test_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"noise: x has shape \[4, 5\], expected \[n, c, h >= 4, w >= 4\]"):
        Noise.fit(Signals(np.zeros((4, 5), np.float32)), np.zeros(4, np.int64), seed=0)
    with pytest.raises(ValueError, match="all alike"):
        Noise.fit(Signals(np.zeros((4, 1, 5, 5), np.float32)), np.zeros(4, np.int64), seed=0)
    with pytest.raises(ValueError, match=r"expected \['n', 1, 16, 16\]"):
        FITTED.score(Signals(np.zeros((1, 1, 8, 8), np.float32)))
