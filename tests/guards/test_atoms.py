"""Atoms: a cut lies between the values that rows share, never inside one of them or at its edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.atoms import NATS, SCORES, SUSPICIONS, Resolution, atom_starts, cut_above, varying
from guards.rows import F8

RESOLUTIONS = st.sampled_from([NATS, SUSPICIONS, SCORES])


def lattice(seed: int, n: int, levels: int, noise: float) -> F8:
    """n ranked scores on a few levels between 0 and 1, each off by at most `noise` (relative)."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, levels, n) / levels
    return np.sort(level * (1 + noise * rng.uniform(-1, 1, n)))


@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.integers(1, 9),
    st.sampled_from([0.0, 1e-7, 1e-9]),
    st.data(),
    RESOLUTIONS,
)
def test_the_cut_lies_above_the_whole_atom_and_below_the_next_with_room_on_both_sides(
    seed: int, n: int, levels: int, noise: float, data: st.DataObject, resolution: Resolution
) -> None:
    ranked = lattice(seed, n, levels, noise)
    at = data.draw(st.integers(0, n - 1))
    cut = cut_above(ranked, at, resolution)
    atom = np.abs(ranked - ranked[at]) < 0.05
    room = resolution.tolerance(float(ranked[at])) / 2
    assert cut >= ranked[atom].max() + room
    assert cut <= ranked[atom].max() + 5.01 * resolution.tolerance(float(ranked[at]))
    assert (ranked[ranked > ranked[atom].max()] >= cut + room).all()


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40), st.data(), RESOLUTIONS)
def test_the_cut_is_always_above_the_score_that_it_is_put_above(
    scores: list[float], data: st.DataObject, resolution: Resolution
) -> None:
    ranked = np.sort(np.array(scores))
    at = data.draw(st.integers(0, len(scores) - 1))
    cut = cut_above(ranked, at, resolution)
    assert np.isfinite(cut)
    assert cut > ranked[at]


def test_the_cut_is_halfway_to_the_next_atom_but_at_most_five_tolerances_up_or_a_half() -> None:
    ranked = np.array([0.0, 1.0, 1.0, 1.004, 3.0])
    assert cut_above(ranked, 2, NATS) == pytest.approx(1.002, abs=1e-12)
    assert cut_above(ranked, 0, NATS) == pytest.approx(1e-3)
    assert cut_above(np.array([0.0, 3.0, 3.0]), 1, NATS) == pytest.approx(3.01)
    assert cut_above(np.array([0.0, 3.0, 3.0]), 2, NATS) == pytest.approx(3.01)
    assert cut_above(ranked, 4, NATS) == pytest.approx(3.001)
    assert cut_above(np.array([0.2, 0.2]), 0, SUSPICIONS) == pytest.approx(0.2 + 5 * 2e-5 * 0.2)
    assert cut_above(np.zeros(3), 1, SUSPICIONS) == pytest.approx(2.5e-6)


def test_dense_scores_move_the_cut_by_four_tolerances_at_most() -> None:
    ranked = np.sort(np.random.default_rng(0).uniform(0, 1, 100_000))  # 200 rows a tolerance
    cut = cut_above(ranked, 90_000, NATS)
    assert 0 < cut - ranked[90_000] < 5 * NATS.absolute
    assert abs(ranked - cut).min() > np.median(np.diff(ranked)), "not in the widest gap"


def test_two_sure_rows_of_a_float32_model_are_one_atom_and_two_unsure_ones_are_not() -> None:
    ulp = 2.0**-24
    ranked = np.array([0.0, ulp, 2 * ulp, 0.1, 0.1001])
    assert 2 * ulp < cut_above(ranked, 0, SUSPICIONS) < 0.1
    assert 0.1 < cut_above(ranked, 3, SUSPICIONS) < 0.1001


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 9), st.sampled_from([0.0, 1e-7, 1e-9]))
def test_each_level_is_one_atom_whatever_the_noise(seed: int, n: int, levels: int, noise: float) -> None:
    ranked = lattice(seed, n, levels, noise)
    distinct = np.unique(np.rint(ranked * levels))
    assert np.rint(ranked[atom_starts(ranked, SCORES)] * levels).tolist() == distinct.tolist()


def test_an_atom_does_not_grow_by_chaining() -> None:
    ranked = np.linspace(0.0, 1.0, 1_000_001)
    starts = atom_starts(ranked, Resolution(1e-3, 0.0))
    assert 900 <= len(starts) <= 1001


def test_a_column_of_rounding_noise_does_not_vary() -> None:
    noisy = 0.1 * (1 + 1e-8 * np.random.default_rng(0).standard_normal(50))
    columns = np.stack([noisy, np.full(50, 4012345679.0), np.zeros(50), np.arange(50.0)], 1)
    assert varying(columns).tolist() == [False, False, False, True]
