"""Long rows of numbers are judged by a few measures of their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guards.arrays import load, pack, save, unpack
from guards.raw_tabular import RawTabular
from guards.rows import Signals
from guards.summary_columns import Summary
from guards.table import MOST_NUMBERS, Table

WIDTH = 2 * MOST_NUMBERS
NOTHING: frozenset[str] = frozenset()


def signals(n: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """n smooth signals that end in silence, as a recording does."""
    rng = np.random.default_rng(seed)
    at = np.linspace(0, 1, WIDTH)
    waves = np.sin(2 * np.pi * (rng.uniform(2, 6, (n, 1)) * at + rng.random((n, 1))))
    loud = rng.uniform(0.5, 1.5, (n, 1)) * waves + 0.05 * rng.standard_normal((n, WIDTH))
    return np.where(at < rng.uniform(0.6, 0.9, (n, 1)), loud, 0.0).astype(np.float32)


GOOD = signals(600, 0)
TABLE = Table.fit({"signal": GOOD}, NOTHING, NOTHING)
assert TABLE is not None


def test_a_long_row_has_named_columns_of_finite_numbers() -> None:
    assert TABLE is not None
    assert TABLE.columns == tuple(f"signal{suffix}" for suffix in Summary.suffixes)
    assert TABLE.unguarded == ()
    read = TABLE.read({"signal": GOOD[:5]})
    assert read.shape == (5, len(Summary.suffixes)) and read.dtype == np.float32
    np.testing.assert_allclose(read[:, 0], GOOD[:5].mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read[:, 1], GOOD[:5].std(1), rtol=1e-5)
    np.testing.assert_allclose(read[:, 5], (GOOD[:5] == 0).mean(1), rtol=1e-6)


@pytest.mark.parametrize(
    "odd",
    [
        np.random.default_rng(1).uniform(-1, 1, WIDTH),  # noise
        np.zeros(WIDTH),  # silence
        30 * GOOD[0],  # another unit
        GOOD[0] + 40,  # an offset
        np.sign(GOOD[0]) * 3,  # clipped
    ],
    ids=["noise", "silence", "unit", "offset", "clipped"],
)
def test_a_signal_unlike_the_calibration_rows_is_rarer_than_good_ones(
    odd: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    assert TABLE is not None
    fitted = RawTabular.fit(Signals(None, TABLE.read({"signal": GOOD})), np.zeros(600, np.int64), seed=0)
    good = fitted.score(Signals(None, TABLE.read({"signal": signals(500, 2)})))
    found = fitted.score(Signals(None, TABLE.read({"signal": odd[None].astype(np.float32)})))
    assert found[0] > np.quantile(good, 0.98)


def test_rows_read_the_same_alone_and_after_a_round_trip(tmp_path: Path) -> None:
    assert TABLE is not None
    save(tmp_path / "t.npz", pack("table", TABLE))
    back = unpack(Table, "table", load(tmp_path / "t.npz"))
    whole = TABLE.read({"signal": GOOD[:9]})
    alone = np.concatenate([back.read({"signal": GOOD[i : i + 1]}) for i in range(9)])
    assert alone.tobytes() == whole.tobytes()


def test_integers_beyond_float32_and_no_rows_are_read() -> None:
    wide = np.full((2, WIDTH), 2**60, np.int64)
    table = Table.fit({"ids": wide[:0]}, NOTHING, NOTHING)
    assert table is not None
    assert table.read({"ids": wide})[0, 0] == np.float32(2.0**60)
