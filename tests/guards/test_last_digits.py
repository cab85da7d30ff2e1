"""The score of a row does not depend on its batch or on noise in the last digits, on coarse data either.

The property: float32 noise of 1e-7, relative, on what a model computed (and on pictures) moves the rarity of
a row by at most a hundredth of a nat, or of its rarity where that is above one nat (beyond the last knot the
score itself is large, and its noise with it). Table rows are exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.ood import Ood
from guards.order_statistic import certified_cut
from guards.raw_tabular import RawTabular
from guards.rows import F8, Signals
from tests.support.guard_world import features, known, logits, part

I8 = NDArray[np.int64]
F4 = NDArray[np.float32]
N, D, K = 1200, 8, 3
FEATURE_KINDS = ("gen", "fdbd", "rmd", "residual", "knn")


def of_a_survey(rng: np.random.Generator) -> tuple[F8, I8]:
    """A small rectified layer over two questions with five and four answers: twenty distinct rows."""
    x = np.stack([rng.choice(5, N), rng.choice(4, N)], 1)
    h = np.maximum(x @ np.random.default_rng(5).standard_normal((2, D)), 0)
    return h, (x.sum(1) + rng.normal(0, 1.5, N) > 3).astype(np.int64)


def of_clusters(rng: np.random.Generator) -> tuple[F8, I8]:
    y = rng.integers(0, K, N)
    return features(rng, y, D).astype(np.float64), y


def repeated(rng: np.random.Generator) -> tuple[F8, I8]:
    rows, y = of_clusters(np.random.default_rng(1))
    which = rng.integers(0, 30, N)
    return rows[which], y[which]


def two_distinct(rng: np.random.Generator) -> tuple[F8, I8]:
    rows = np.random.default_rng(2).uniform(0, 3, (2, D))
    return rows[rng.integers(0, 2, N)], rng.integers(0, 2, N)


def alike_but_one(rng: np.random.Generator) -> tuple[F8, I8]:
    h = np.full((N, D), 0.1)
    h[rng.integers(0, N)] = rng.uniform(0, 3, D)
    return h, rng.integers(0, 2, N)


def whole_numbers(rng: np.random.Generator) -> tuple[F8, I8]:
    y = rng.integers(0, K, N)
    return rng.poisson(1 + y[:, None], (N, D)).astype(np.float64), y


def one_hot_that_never_fires(rng: np.random.Generator) -> tuple[F8, I8]:
    y = rng.integers(0, K, N)
    said = np.where(rng.uniform(size=N) < 0.7, y, rng.integers(0, K, N))
    return np.eye(D)[said] + np.eye(D)[rng.integers(K, D - 1, N)], y


def beside_a_huge_constant(rng: np.random.Generator) -> tuple[F8, I8]:
    h, y = of_clusters(rng)
    return np.concatenate([h[:, 1:], np.full((N, 1), 4012345679.0)], 1), y


def beside_a_constant_that_has_no_exact_float(rng: np.random.Generator) -> tuple[F8, I8]:
    h, y = whole_numbers(rng)
    return np.concatenate([h[:, 1:], np.full((N, 1), 0.1)], 1), y


def a_thousand_times_larger(rng: np.random.Generator) -> tuple[F8, I8]:
    h, y = of_a_survey(rng)
    return 1e3 * h, y


def a_thousand_times_smaller(rng: np.random.Generator) -> tuple[F8, I8]:
    h, y = of_a_survey(rng)
    return 1e-3 * h, y


FEATURES = (
    of_a_survey,
    of_clusters,
    repeated,
    two_distinct,
    alike_but_one,
    whole_numbers,
    one_hot_that_never_fires,
    beside_a_huge_constant,
    beside_a_constant_that_has_no_exact_float,
    a_thousand_times_larger,
    a_thousand_times_smaller,
)
TABLES = [draw for draw in FEATURES if draw is not alike_but_one]

Draw = Callable[[np.random.Generator], tuple[F8, I8]]


def answered(draw: Draw, seed: int) -> tuple[Signals, I8]:
    h, y = draw(np.random.default_rng(seed))
    h4 = h.astype(np.float32)
    return Signals(None, t=h4, h=h4, z=logits(h4 / np.float32(max(1.0, h.max() / 4)), K)), y


def off(array: F4, rng: np.random.Generator) -> F4:
    return np.asarray(array * (1 + 1e-7 * rng.uniform(-1, 1, array.shape)), np.float32)


def count(s: Signals) -> int:
    return next(len(one) for one in (s.x, s.t, s.h) if one is not None)


def in_batches(ood: Ood, s: Signals, size: int) -> F8:
    return np.concatenate([ood.score(part(s, slice(at, at + size))) for at in range(0, count(s), size)])


def assert_same_to_a_hundredth(ood: Ood, s: Signals, noisy: Signals) -> None:
    whole = ood.score(s)
    for size in (1, 7, 512):
        allowed = 0.01 * np.maximum(whole, 1)
        assert (np.abs(in_batches(ood, s, size) - whole) <= allowed).all(), f"batches of {size}"
        assert (np.abs(in_batches(ood, noisy, size) - whole) <= allowed).all(), f"noise, batches of {size}"


@pytest.mark.parametrize("draw", FEATURES)
@pytest.mark.parametrize("kinds", [*((kind,) for kind in FEATURE_KINDS), FEATURE_KINDS])
def test_float32_noise_of_the_model_moves_no_rarity(draw: Draw, kinds: tuple[str, ...]) -> None:
    if "rmd" in kinds and draw is beside_a_huge_constant:
        with pytest.raises(ValueError, match="rmd: the features of a class are all alike"):
            Ood.fit(kinds, *answered(draw, 0), answered(draw, 1)[0], 0)  # at unit length
        return
    fit, tail, fresh = (answered(draw, seed) for seed in (0, 1, 2))
    ood = Ood.fit(kinds, *fit, tail[0], 0)
    s, rng = part(fresh[0], slice(0, 512)), np.random.default_rng(9)
    assert s.h is not None and s.z is not None
    noisy = Signals(None, t=s.t, h=off(s.h, rng), z=off(s.z, rng))
    assert_same_to_a_hundredth(ood, s, noisy)
    for budget in (0.02, 0.1, 0.3):
        cut = certified_cut(ood.score(s), budget, 0.05).value
        np.testing.assert_array_equal(ood.score(noisy) >= cut, ood.score(s) >= cut)


def test_rows_on_a_decision_boundary_keep_their_rarity_whichever_class_the_noise_picks() -> None:
    """Two logits tie in a third of the rows, between classes at different distances from the third."""
    corners = np.array([[1.0, 0.2], [0.2, 1.0], [1.0, 1.0]], np.float32)
    head = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -0.5]], np.float32)

    def drawn(seed: int) -> Signals:
        h = corners[np.random.default_rng(seed).integers(0, 3, N)]
        return Signals(None, h=h, z=h @ head)

    ood = Ood.fit(("fdbd",), drawn(0), np.zeros(N, np.int64), drawn(1), 0)
    s, rng = part(drawn(2), slice(0, 512)), np.random.default_rng(9)
    assert s.h is not None and s.z is not None
    assert_same_to_a_hundredth(ood, s, Signals(None, t=s.t, h=off(s.h, rng), z=off(s.z, rng)))


def images_of(draw: Draw, seed: int) -> tuple[Signals, I8]:
    """The features, as 6 x 6 pictures in [0, 1]: rows that repeat, and quiet regions."""
    h, y = draw(np.random.default_rng(seed))
    tiled = np.tile(h / max(1.0, float(np.abs(h).max())), (1, 5))[:, :36]
    return Signals(tiled.reshape(-1, 1, 6, 6).astype(np.float32)), y


@pytest.mark.parametrize("draw", TABLES)
def test_table_rows_keep_their_rarity_in_every_batch(draw: Draw) -> None:
    fit, tail, fresh = (answered(draw, seed) for seed in (0, 1, 2))
    ood = Ood.fit(("raw",), Signals(None, t=fit[0].t), fit[1], Signals(None, t=tail[0].t), 0)
    s = part(Signals(None, t=fresh[0].t), slice(0, 512))
    assert_same_to_a_hundredth(ood, s, s)


@pytest.mark.parametrize("draw", TABLES)
def test_a_table_that_is_exact_but_for_rounding_keeps_its_rarity(draw: Draw) -> None:
    fit, fresh = answered(draw, 0), answered(draw, 2)
    raw = RawTabular.fit(Signals(None, t=fit[0].t), fit[1], seed=0)
    noisy = off(known(fresh[0].t), np.random.default_rng(9))
    one, other = raw.score(Signals(None, t=fresh[0].t)), raw.score(Signals(None, t=noisy))
    assert (np.abs(one - other) <= 0.01 * np.maximum(one, 1)).all()


@pytest.mark.parametrize("draw", FEATURES)
@pytest.mark.parametrize("kind", ["noise", "raw"])
def test_pictures_keep_their_rarity_in_every_batch_and_under_noise(kind: str, draw: Draw) -> None:
    if kind == "raw" and draw is alike_but_one:
        with pytest.raises(ValueError, match="raw_image: the pictures to fit on are all alike"):
            Ood.fit(("raw",), *images_of(draw, 0), images_of(draw, 1)[0], 0)
        return
    fit, tail, fresh = (images_of(draw, seed) for seed in (0, 1, 2))
    ood = Ood.fit((kind,), *fit, tail[0], 0)
    s = part(fresh[0], slice(0, 512))
    assert_same_to_a_hundredth(ood, s, Signals(off(known(s.x), np.random.default_rng(9))))
