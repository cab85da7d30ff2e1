"""Generated outliers and harmless changes: what their names state, inside the bounds, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.families import harmless, outliers

N = 12
Y = np.arange(N) % 3


def _pictures() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (N, 1, 8, 8)) / 255).astype(np.float32)


def _table() -> NDArray[np.float32]:
    return np.random.default_rng(0).integers(0, 16, (N, 6)).astype(np.float32)


@pytest.mark.parametrize(("x", "bounds"), [(_pictures(), (0.0, 1.0)), (_table(), (0.0, 15.0))])
def test_every_family_has_the_form_and_bounds_of_the_input(
    x: NDArray[np.float32], bounds: tuple[float, float]
) -> None:
    made = outliers(x, Y, bounds, 0) | harmless(x, bounds, 0)
    again = outliers(x, Y, bounds, 0) | harmless(x, bounds, 0)
    assert len(made) >= 6
    for name, rows in made.items():
        assert rows.shape == x.shape and rows.dtype == np.float32, name
        assert rows.min() >= bounds[0] and rows.max() <= bounds[1], name
        assert not np.array_equal(rows, x), name
        np.testing.assert_array_equal(rows, again[name])


def test_picture_families_move_pixels_as_their_names_state() -> None:
    x = _pictures()
    made = outliers(x, Y, (0.0, 1.0), 0)
    np.testing.assert_array_equal(np.sort(made["patches shuffled"], axis=None), np.sort(x, axis=None))
    np.testing.assert_allclose(made["inverted"], 1 - x, atol=1e-7)
    np.testing.assert_array_equal(made["rotated 90 degrees"], np.rot90(x, axes=(2, 3)))
    assert np.ptp(made["constant"].reshape(N, -1), axis=1).max() == 0
    halves = made["halves of two classes"]
    np.testing.assert_array_equal(halves[..., :4], x[..., :4])
    for row, own in zip(halves, Y, strict=True):
        right = [
            int(y) for other, y in zip(x, Y, strict=True) if np.array_equal(other[..., 4:], row[..., 4:])
        ]
        assert right and own not in right


def test_table_families_keep_whole_numbers_but_the_one_that_breaks_them() -> None:
    x = _table()
    made = outliers(x, Y, (0.0, 15.0), 0)
    whole = {name for name, rows in made.items() if (rows == np.rint(rows)).all()}
    assert made.keys() - whole == {"fractional"}
    np.testing.assert_array_equal(np.sort(made["columns shuffled"], axis=0), np.sort(x, axis=0))


def test_harmless_changes_are_small() -> None:
    x = _pictures()
    made = harmless(x, (0.0, 1.0), 0)
    assert np.abs(made["10 % brighter"] - x).max() <= 0.1 + 1e-6
    for row, moved in zip(x, made["shifted one pixel"], strict=True):
        ways = [np.roll(row, way, axis) for axis in (1, 2) for way in (-1, 1)]
        assert any(np.array_equal(way[:, 1:-1, 1:-1], moved[:, 1:-1, 1:-1]) for way in ways)
    nudged = harmless(_table(), (0.0, 15.0), 0)["one value off by one"]
    np.testing.assert_array_equal(np.abs(nudged - _table()).sum(1), np.ones(N))


def test_an_input_that_is_neither_has_no_families() -> None:
    x = np.zeros((N, 3, 3), np.float32)
    assert not outliers(x, Y, (0.0, 1.0), 0) and not harmless(x, (0.0, 1.0), 0)
