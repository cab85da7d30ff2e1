"""Rows as an attacker moves them: scaled, within the samples' values, on their lattice if asked to."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.core.errors import InvalidRequest
from gateway.redteam.space import Column, Space, Within
from tests.support.attacked import TABLE, picture_space

RNG = np.random.default_rng(0)
WHOLE = {"x": RNG.integers(0, 15, (500, 6)).astype(np.float32) * [1, 1, 2, 1, 1, 0]}


def test_columns_of_a_table_are_in_standard_deviations() -> None:
    space = Space.of((TABLE,), WHOLE)
    assert space.picture is None and "standard deviations" in space.unit
    assert space.scaled(WHOLE).std(axis=0) == pytest.approx([1, 1, 1, 1, 1, 0])
    assert space.tensors(space.scaled(WHOLE))["x"] == pytest.approx(WHOLE["x"])


def test_pictures_keep_their_scale_and_bytes_are_divided_by_255() -> None:
    assert (picture_space().scale == 1).all()
    assert (picture_space(high=255.0).scale == 255).all()
    colour = Column("i", np.dtype(np.float32), (16, 16, 3))
    space = Space.of((colour,), {"i": RNG.uniform(0, 1, (4, 16, 16, 3))})
    assert space.picture == (3, 16, 16) and space.channels_last


def test_rows_stay_within_the_values_of_the_samples() -> None:
    space = Space.of((TABLE,), WHOLE)
    sent = space.tensors(np.full((1, 6), 1e9))["x"][0]
    assert sent == pytest.approx(WHOLE["x"].max(axis=0))


def test_on_the_lattice_whole_numbers_stay_whole() -> None:
    space = Space.of((TABLE,), WHOLE)
    rows = space.scaled(WHOLE) + RNG.normal(0, 0.3, (500, 6))
    free, kept = space.tensors(rows)["x"], space.on_lattice().tensors(rows)["x"]
    assert (free != np.round(free)).mean() > 0.5
    assert kept == pytest.approx(np.round(kept), abs=1e-4)


def test_on_the_lattice_a_linf_step_is_the_largest_whole_one_within_the_radius() -> None:
    space = Space.of((TABLE,), WHOLE).on_lattice()
    moved = space.reach(0.5) * space.scale
    assert moved[:5] == pytest.approx(np.floor(0.5 * space.scale[:5]))
    assert (space.reach(0.5) <= 0.5 + 1e-9).all()


def test_pixels_of_eight_bits_have_a_lattice_and_others_have_none() -> None:
    rows = {"image": RNG.integers(0, 256, (9, 1, 8, 8)) / np.float32(255)}
    space = Space.of(picture_space().inputs, rows)
    assert space.grid == pytest.approx(np.full(64, 1 / 255))
    assert (picture_space().grid == 0).all()


def test_a_row_is_drawn_back_to_the_radius() -> None:
    start, far = np.zeros(4), np.array([3.0, 4.0, 0.0, 0.0])
    assert Within("l2", 1.0).project(far, start) == pytest.approx([0.6, 0.8, 0, 0])
    assert Within("linf", 1.0).project(far, start) == pytest.approx([1, 1, 0, 0])
    assert Within("l2", 1.0).distance(far, start) == 5 and Within("linf", 1.0).distance(far, start) == 4


def test_samples_with_missing_values_are_named() -> None:
    with pytest.raises(InvalidRequest, match="--samples: holds values that are missing"):
        Space.of((TABLE,), {"x": np.full((3, 6), np.nan)})
