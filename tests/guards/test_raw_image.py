"""RawImage: each way to be odd is heard, harmless change is not, and the Gaussian is what it claims."""

from __future__ import annotations

import numpy as np
import pytest

from guards.raw_image import Pooled, RawImage, _pooling_matrix, _statistics
from guards.rows import F8, Signals
from tests.support.guard_world import SIDE, known, world

S, Y = world(1, 600)
FITTED = RawImage.fit(S, Y, seed=0)
X = known(S.x)
GOOD = known(world(2, 400)[0].x).astype(np.float64)
USUAL = float(np.quantile(FITTED.score(Signals(GOOD.astype(np.float32))), 0.99))


def flagged(x: F8) -> float:
    return float((FITTED.score(Signals(x.astype(np.float32))) > USUAL).mean())


@pytest.mark.parametrize("size", [3, 8, 11, 28])
def test_the_pool_averages_its_parts_and_leaves_none_out(size: int) -> None:
    bins = _pooling_matrix(size)
    assert bins.shape == (min(8, size), size)
    np.testing.assert_allclose(bins.sum(1), 1)
    assert (bins.sum(0) > 0).all()
    if size % 8 == 0 or size < 8:
        np.testing.assert_allclose(
            bins, np.kron(np.eye(min(8, size)), np.full((1, -(-size // 8)), 1 / -(-size // 8)))
        )


def test_the_gaussian_is_mahalanobis_with_one_variance_outside_the_principal_space() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 2, 8, 8)) * np.linspace(1, 4, 128).reshape(2, 8, 8)
    fitted = Pooled.fit(x)
    cells = x.reshape(500, -1)
    values, vectors = np.linalg.eigh(np.cov(cells.T))
    r = len(fitted.basis)
    assert values[-r:].sum() >= 0.95 * values.sum() > values[-r + 1 :].sum()
    values[:-r] = values[:-r].mean()
    covariance = vectors @ np.diag(values) @ vectors.T
    fresh = rng.standard_normal((20, 2, 8, 8))
    apart = fresh.reshape(20, -1) - cells.mean(0)
    expected = np.einsum("nd,de,ne->n", apart, np.linalg.inv(covariance), apart)
    np.testing.assert_allclose(fitted.distance(fresh), expected, rtol=1e-9)


def test_statistics_of_pictures_that_one_can_count() -> None:
    x = np.full((2, 1, 2, 4), 0.5)
    x[0, 0, 0] = [0, 1, 0, 0.5]
    extreme, _ = _statistics(x, 0.0, 1.0)
    assert extreme.tolist() == [3 / 8, 0]
    stripes = np.tile([0.25, 0.75], (1, 1, 4, 4))
    fine, least = 0.25, 1e-4
    assert _statistics(stripes, 0.0, 1.0)[1][0] == pytest.approx(np.log((fine + least) / (0.0625 + least)))
    assert _statistics(stripes.swapaxes(2, 3), 0.0, 1.0)[1] == pytest.approx(
        _statistics(stripes, 0.0, 1.0)[1]
    )


def test_good_pictures_pass_as_often_as_they_should() -> None:
    assert flagged(known(world(3, 400)[0].x).astype(np.float64)) < 0.03


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ("noise", 0.9),
        ("inverted", 0.9),
        ("blank", 0.9),
        ("checkerboard", 0.9),
        ("upside down", 0.5),
        ("blurred", 0.9),
    ],
)
def test_each_kind_of_outlier_raises_the_score(change: str, least: float) -> None:
    rng = np.random.default_rng(0)
    board = np.indices((SIDE, SIDE)).sum(0) % 2
    shifts = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    blurred = np.mean([np.roll(GOOD, shift, (2, 3)) for shift in shifts], 0)
    x = {
        "noise": np.clip(GOOD + 0.2 * rng.standard_normal(GOOD.shape), 0, 1),
        "inverted": 1 - GOOD,
        "blank": np.zeros_like(GOOD),
        "checkerboard": np.broadcast_to(board, GOOD.shape) * 0.5 + 0.25,
        "upside down": GOOD[:, :, ::-1, ::-1],
        "blurred": blurred,
    }[change]
    assert flagged(x) > least


def test_a_little_more_or_less_light_passes() -> None:
    assert flagged(np.clip(GOOD * 1.03, 0, 1)) < 0.1
    assert flagged(GOOD * 0.97) < 0.1


def test_saturation_is_judged_on_both_sides() -> None:
    lifted = np.maximum(GOOD, 0.02)  # the black frame is gone; nothing else changes to speak of
    assert flagged(lifted) > 0.9


def test_a_first_saturated_pixel_is_odd_but_no_end_of_the_world() -> None:
    soft = np.clip(X, 0.1, 0.7).astype(np.float32) + np.linspace(0, 1e-2, 144).reshape(12, 12).astype(
        np.float32
    )
    soft[0, 0, 0, :2] = 0, 1  # the range; no other row reaches it
    touched = soft[1:].copy()
    touched[:, 0, 0, 0] = 0
    for seed in range(4):  # the row with the range falls into either half
        fitted = RawImage.fit(Signals(soft), Y, seed=seed)
        assert (fitted.score(Signals(touched)) - fitted.score(Signals(soft[1:]))).max() < 30


def test_any_range_will_do_if_it_is_the_same_in_fit() -> None:
    wide = RawImage.fit(Signals(X * 4 - 2), Y, seed=0)
    np.testing.assert_allclose(wide.score(Signals(X * 4 - 2)), FITTED.score(S), rtol=1e-3, atol=1e-3)


def test_what_is_no_picture_or_does_not_vary_is_refused() -> None:
    flat = Signals(np.zeros((100, 5), np.float32))
    with pytest.raises(
        ValueError, match=r"raw_image: x has shape \[100, 5\], expected \[n, c, h >= 2, w >= 2\]"
    ):
        RawImage.fit(flat, np.zeros(100, np.int64), seed=0)
    with pytest.raises(ValueError, match="h >= 2"):
        RawImage.fit(Signals(X[:, :, :1]), Y, seed=0)
    for shade in (0.0, 0.1):
        with pytest.raises(ValueError, match="all alike"):
            RawImage.fit(Signals(np.full((100, 1, 9, 9), shade, np.float32)), np.zeros(100, np.int64), seed=0)
    rounding = 1 + 1e-7 * np.random.default_rng(0).uniform(-1, 1, (100, 1, 9, 9))
    with pytest.raises(ValueError, match="all alike"):
        RawImage.fit(Signals((0.1 * rounding).astype(np.float32)), np.zeros(100, np.int64), seed=0)
    with pytest.raises(ValueError, match="79 rows to fit on, needs at least 80"):
        RawImage.fit(Signals(X[:79]), Y[:79], seed=0)
    with pytest.raises(
        ValueError, match=r"raw_image: x has shape \[2, 1, 12, 11\], expected \['n', 1, 12, 12\]"
    ):
        FITTED.score(Signals(X[:2, :, :, 1:]))
