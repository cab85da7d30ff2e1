"""Rarity: the empirical -log P(S >= s) in the body, an exponential tail, continuous and monotone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.atoms import Resolution
from guards.rarity import KNOTS, Composite, Tail, blend
from guards.rows import F8


def tied_sample(seed: int, n: int, levels: int) -> F8:
    """n scores on a lattice: heavily tied for few levels, hardly for many."""
    return np.asarray(np.random.default_rng(seed).geometric(1 / levels, n) / 8, np.float64)


SAMPLES = st.builds(
    tied_sample, st.integers(0, 2**32), st.integers(20, 400), st.sampled_from([1, 2, 5, 50, 1000])
)


def reach(sample: F8, s: float) -> float:
    return float((sample >= s).mean())


def tail_share(sample: F8) -> float:
    return max(0.05, 10 / len(sample))


@given(SAMPLES)
def test_is_the_empirical_rarity_at_every_score_of_the_body(sample: F8) -> None:
    tail = Tail.fit(sample)
    for s in np.unique(sample):
        if reach(sample, s) > tail_share(sample):
            assert tail.rarity(np.array([s]))[0] == pytest.approx(-np.log(reach(sample, s)), abs=1e-12)


@given(SAMPLES)
def test_the_tail_begins_at_the_least_score_that_at_most_five_percent_or_ten_rows_reach(sample: F8) -> None:
    values = np.unique(sample)
    rare = [s for s in values if reach(sample, s) <= tail_share(sample)]
    start = rare[0] if rare else values[-1]
    tail = Tail.fit(sample)
    assert tail.values[-1] == start
    at, above = tail.rarity(np.array([start, start + 2 * tail.scale]))
    assert at == pytest.approx(-np.log(reach(sample, start)), abs=1e-12)
    assert above == pytest.approx(at + 2, rel=1e-9)


@given(SAMPLES)
def test_never_falls_is_continuous_and_rises_strictly_in_the_tail(sample: F8) -> None:
    tail = Tail.fit(sample)
    grid = np.linspace(sample.min() - 1, sample.max() + 1, 5001)
    u = tail.rarity(grid)
    assert (u >= 0).all()
    assert (np.diff(u) >= 0).all()
    steepest = max(float(np.max(np.diff(tail.rarities) / np.diff(tail.values), initial=0)), 1 / tail.scale)
    assert np.diff(u).max() <= steepest * (grid[1] - grid[0]) * (1 + 1e-6) + 1e-9
    beyond = tail.rarity(tail.values[-1] + tail.scale * np.arange(50.0))
    assert (np.diff(beyond) > 0).all()


def test_the_least_score_and_all_below_it_have_no_rarity() -> None:
    sample = np.concatenate([np.zeros(50), np.arange(50.0)])
    assert Tail.fit(sample).rarity(np.array([0.0, -5.0, -np.inf])).tolist() == [0, 0, 0]


def test_infinity_stays_infinity_and_nan_stays_nan() -> None:
    found = Tail.fit(np.arange(100.0)).rarity(np.array([np.inf, np.nan]))
    assert found[0] == np.inf
    assert np.isnan(found[1])


def test_an_exponential_sample_gets_its_true_rarity_far_into_the_tail() -> None:
    rng = np.random.default_rng(0)
    s = np.array([0.5, 2.0, 10.0, 20.0])
    found = Tail.fit(rng.exponential(3.0, 20_000)).rarity(3 * s)
    np.testing.assert_allclose(found, s, rtol=0.06)


def test_keeps_at_most_512_knots_and_stays_close_to_the_whole() -> None:
    sample = np.random.default_rng(1).standard_normal(20_000)
    tail = Tail.fit(sample)
    assert len(tail.values) == KNOTS == 512
    s = np.linspace(-4, np.quantile(sample, 0.95), 200)
    exact = -np.log([reach(sample, x) for x in s])
    np.testing.assert_allclose(tail.rarity(s), exact, atol=5e-3)


def test_a_constant_sample_has_a_tail_all_the_same() -> None:
    tail = Tail.fit(np.full(30, 7.0))
    assert tail.rarity(np.array([7.0]))[0] == 0
    assert 0 < tail.rarity(np.array([7.1]))[0] < np.inf


def test_the_floor_sets_what_one_nat_costs_where_good_rows_never_differ() -> None:
    tail = Tail.fit(np.zeros(30), floor=0.02)
    assert tail.rarity(np.array([0.02, 0.5])).tolist() == pytest.approx([1.0, 25.0])
    spread = np.random.default_rng(0).exponential(1.0, 1000)
    assert Tail.fit(spread, floor=0.02).scale == Tail.fit(spread).scale


def noisy_levels(noise: float, rare: float = 0.02) -> F8:
    """1000 scores on the levels 0, 1, 2 and, for a share `rare`, 3, each off by at most `noise`."""
    rng = np.random.default_rng(4)
    chance = [0.6 - rare, 0.3, 0.1, rare]
    return rng.choice(4, 1000, p=chance) + noise * rng.uniform(-1, 1, 1000)


@pytest.mark.parametrize("rare", [0.02, 0.2])
@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-9, 1e-7])
def test_noise_in_the_last_digits_makes_no_knots_and_moves_no_rarity(noise: float, rare: float) -> None:
    exact, tail = Tail.fit(noisy_levels(0.0, rare)), Tail.fit(noisy_levels(noise, rare))
    assert len(tail.values) == len(exact.values) <= 4
    others = noisy_levels(-noise, rare)
    np.testing.assert_allclose(tail.rarity(others), exact.rarity(noisy_levels(0.0, rare)), atol=0.01)


def test_scores_that_hardly_differ_get_a_tail_of_ten_tolerances() -> None:
    constant = 7 + 1e-12 * np.random.default_rng(0).standard_normal(1000)
    tail = Tail.fit(constant)
    assert len(tail.values) == 1
    assert tail.rarity(7 + np.array([1e-7, -1e-7])).max() < 0.01
    wide = Tail.fit(1e6 * constant, resolution=Resolution(100.0, 0.0))
    assert wide.scale == 1000.0
    assert wide.rarity(np.array([7e6 + 50.0]))[0] == pytest.approx(0.05, abs=1e-3)


def test_the_resolution_of_each_score_of_a_composite_is_measured() -> None:
    rng = np.random.default_rng(0)
    unit = 1e4 * rng.integers(0, 3, 1000).astype(np.float64)
    shaken = unit + rng.uniform(-1, 1, 1000)
    composite = Composite.fit([unit], [shaken])
    assert composite.tails[0].scale >= 290
    assert np.abs(composite.rarity([unit + 0.1]) - composite.rarity([unit])).max() < 0.01


def test_a_heavy_atom_is_not_smeared_over_the_few_scores_above_it() -> None:
    rare = np.random.default_rng(0).exponential(1.0, 30) + 1
    tail = Tail.fit(np.concatenate([np.zeros(970), rare]))
    assert tail.rarity(np.array([rare.min()]))[0] == pytest.approx(-np.log(0.03))
    assert tail.rarity(np.array([rare.min() + 1]))[0] == pytest.approx(-np.log(0.03) + 1, abs=0.6)


@pytest.mark.parametrize(
    "scores",
    [np.arange(19.0), np.append(np.arange(30.0), np.nan), np.append(np.arange(30.0), np.inf), np.eye(30)],
)
def test_too_few_scores_or_ones_that_are_not_finite_are_refused(scores: F8) -> None:
    with pytest.raises(ValueError, match="Tail: needs 20 or more finite scores"):
        Tail.fit(scores)


def test_the_scale_is_the_mean_excess() -> None:
    sample = np.concatenate([np.arange(90.0), [100, 101, 102, 103, 104, 105, 106, 107, 108, 119]])
    assert Tail.fit(sample).scale == pytest.approx(np.mean([0, 1, 2, 3, 4, 5, 6, 7, 8, 19]))


def test_the_blend_is_the_rarest_voice_plus_a_tenth_of_the_mean() -> None:
    tails = [Tail(np.array([0.0]), np.array([0.0]), scale) for scale in (1.0, 2.0, 4.0)]
    scores = [np.array([1.0, 0.0]), np.array([6.0, 4.0]), np.array([8.0, 0.0])]
    np.testing.assert_allclose(blend(tails, scores), [3 + 0.1 * (1 + 3 + 2) / 3, 2 + 0.1 * 2 / 3])
    with pytest.raises(ValueError, match="rarity: 2 scores for 3 tails"):
        blend(tails, scores[:2])


def test_a_composite_is_a_rarity_again() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(4000)
    sample = [shared, shared + 0.1 * rng.standard_normal(4000), rng.exponential(1.0, 4000)]
    composite = Composite.fit([s[:2000] for s in sample], [s[:2000] for s in sample])
    u = composite.rarity([s[2000:] for s in sample])
    for nats in (0.5, 1.0, 2.0, 4.0):
        assert (u >= nats).mean() == pytest.approx(np.exp(-nats), rel=0.35)


def test_one_odd_voice_is_enough_for_a_composite() -> None:
    rng = np.random.default_rng(0)
    composite = Composite.fit(scores := list(rng.standard_normal((3, 1000))), scores)
    usual, odd = composite.rarity([np.zeros(2), np.zeros(2), np.array([0.0, 8.0])])
    assert usual < 1
    assert odd > 8
