"""Prototypes: every class is represented, the choice is reproducible, and they stand for the rows."""

from __future__ import annotations

import numpy as np

from guards.prototypes import distance, half_squared_norms, prototypes, proximity
from guards.rows import F8

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((300, 5)), np.repeat([4, -1, 7], [200, 90, 10])


def spread(x: F8, centres: F8) -> float:
    return float(np.square(x[:, None] - centres[None]).sum(2).min(1).mean())


def test_each_class_gets_its_share_and_no_more_than_it_has_rows() -> None:
    centres, labels = prototypes(X, Y, 60, 0)
    assert labels.tolist() == [-1] * 20 + [4] * 20 + [7] * 10
    assert centres.shape == (50, 5)


def test_every_class_gets_one_even_if_there_are_more_classes_than_prototypes() -> None:
    centres, labels = prototypes(X, Y, 1, 0)
    assert labels.tolist() == [-1, 4, 7]
    for centre, c in zip(centres, labels, strict=True):
        np.testing.assert_allclose(centre, X[c == Y].mean(0))


def test_one_prototype_a_distinct_row_if_there_are_few() -> None:
    x = np.repeat(np.arange(3.0)[:, None], 20, 0)
    centres, _ = prototypes(x, np.zeros(60, np.int64), 10, 0)
    assert np.sort(centres[:, 0]).tolist() == [0, 1, 2]


def test_rows_that_differ_by_rounding_are_one_prototype() -> None:
    x = np.repeat(np.arange(3.0)[:, None], 20, 0) + 1e-8 * np.random.default_rng(0).uniform(-1, 1, (60, 1))
    centres, _ = prototypes(x, np.zeros(60, np.int64), 10, 0)
    assert np.sort(centres[:, 0]).round(6).tolist() == [0, 1, 2]


def test_far_groups_each_get_their_own() -> None:
    groups = np.array([[0.0, 0], [100, 0], [0, 100], [100, 100], [50, 300]])
    x = np.concatenate([g + RNG.standard_normal((40, 2)) for g in groups])
    for seed in range(5):
        centres, _ = prototypes(x, np.zeros(200, np.int64), 5, seed)
        assert spread(groups, centres) < 1


def test_lloyd_steps_beat_random_rows() -> None:
    zeros = np.zeros(300, np.int64)
    centres, _ = prototypes(X, zeros, 20, 0)
    random = [spread(X, X[RNG.choice(300, 20, replace=False)]) for _ in range(20)]
    assert spread(X, centres) < min(random)


def test_the_seed_decides() -> None:
    same, other = prototypes(X, Y, 30, 5)[0], prototypes(X, Y, 30, 6)[0]
    np.testing.assert_array_equal(prototypes(X, Y, 30, 5)[0], same)
    assert (same != other).any()


def test_the_closest_is_the_nearest() -> None:
    centres = RNG.standard_normal((40, 5))
    which = proximity(X, centres, half_squared_norms(centres)).argmax(1)
    apart = np.sqrt(np.square(X[:, None] - centres[None]).sum(2))
    np.testing.assert_array_equal(which, apart.argmin(1))
    np.testing.assert_allclose(distance(X, centres, which), apart.min(1))
