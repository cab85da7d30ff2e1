"""The rows that calibration keeps in guards.npz: which, how many, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.deployment.kept_rows import MOST_BYTES, MOST_ROWS, KeptRows
from gateway.policy.kinds.rows import CalibrationRows
from guards import arrays

Array = NDArray[Any]
DTYPES = [np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64]


def calibrated(x: dict[str, Array], answer: dict[str, Array] | None = None) -> CalibrationRows:
    n = len(next(iter(x.values())))
    answers = {"primary": answer or {"probabilities": np.full((n, 2), 0.5, np.float32)}}
    return CalibrationRows.classified(x, np.zeros(n, np.int64), answers, "primary", lambda _: {})


def texts(*rows: str) -> Array:
    return np.array([[row.encode()] for row in rows], object)


def test_the_first_64_rows_are_kept_with_the_outputs_that_guards_read() -> None:
    x = np.arange(200, dtype=np.float32).reshape(100, 2)
    answer = {name: x + i for i, name in enumerate(("probabilities", "logits", "features", "label", "value"))}
    kept = KeptRows.of(calibrated({"x": x}, answer))
    assert len(kept) == MOST_ROWS == 64
    assert np.array_equal(kept.x["x"], x[:64])
    assert set(kept.answer) == {"probabilities", "logits", "features"}
    assert np.array_equal(kept.answer["features"], x[:64] + 2)


def test_fewer_rows_are_kept_where_there_are_fewer() -> None:
    assert len(KeptRows.of(calibrated({"x": np.zeros((3, 2), np.float32)}))) == 3


@pytest.mark.parametrize(
    ("row_bytes", "kept"), [(MOST_BYTES // 10, 10), (MOST_BYTES, 2), (3 * MOST_BYTES, 2)]
)
def test_fewer_large_rows_are_kept_and_two_at_least(row_bytes: int, kept: int) -> None:
    x = np.zeros((12, row_bytes), np.uint8)
    assert len(KeptRows.of(calibrated({"x": x}))) == kept


def test_long_texts_count_as_large_rows() -> None:
    long = texts(*["a" * (MOST_BYTES // 4)] * 9)
    assert len(KeptRows.of(calibrated({"note": long, "x": np.zeros((9, 1), np.float32)}))) in (3, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_come_back_from_the_file_bit_for_bit(tmp_path: Path, dtype: Any) -> None:
    x = np.array([[[0, 1]], [[1, 0]], [[1, 1]]], dtype)
    kept = KeptRows.of(calibrated({"x": x, "note": texts("é", "", "a\0b")}))
    arrays.save(tmp_path / "guards.npz", kept.pack())
    found = KeptRows.unpack(arrays.load(tmp_path / "guards.npz"))
    assert list(found.x) == ["x", "note"]
    assert (found.x["x"].dtype, found.x["x"].shape) == (np.dtype(dtype), (3, 1, 2))
    assert found.x["x"].tobytes() == x.tobytes()
    assert found.x["note"].tolist() == [["é".encode()], [b""], [b"a\0b"]]
    assert found.answer["probabilities"].tolist() == [[0.5, 0.5]] * 3


def test_missing_values_come_back_as_missing() -> None:
    x = np.array([[np.nan, -0.0], [1.0, np.inf]], np.float32)
    found = KeptRows.unpack(KeptRows({"x": x}, {}).pack())
    assert found.x["x"].tobytes() == x.tobytes()
    assert found.answer == {}


def test_a_file_without_them_asks_for_another_calibration() -> None:
    packed = KeptRows({"x": np.zeros((1, 1))}, {}).pack()
    for lacking in packed:
        rest = {name: array for name, array in packed.items() if name != lacking}
        with pytest.raises(ValueError, match=r"^holds no rows to try the models with; calibrate again$"):
            KeptRows.unpack(rest)


@pytest.mark.parametrize("damage", [lambda a: a[:-1], lambda a: a[1:], lambda a: a.astype(np.float64) + 7])
def test_damaged_rows_are_a_value_error(damage: Any) -> None:
    packed = KeptRows({"x": np.arange(6.0).reshape(3, 2)}, {}).pack()
    with pytest.raises(ValueError):
        KeptRows.unpack({**packed, "kept.x": damage(packed["kept.x"])})


@pytest.mark.parametrize("x", [{}, {"a": np.zeros((0, 2))}, {"a": np.zeros((1, 2)), "b": np.zeros((2, 2))}])
def test_rows_are_one_or_more_and_as_many_of_each_input(x: dict[str, Array]) -> None:
    with pytest.raises(
        ValueError, match="the rows kept by calibration are not the same number of each input"
    ):
        KeptRows(x, {})


@pytest.mark.parametrize(("n", "first"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 0, 1])])
def test_as_many_rows_as_are_asked_for_are_there_from_the_first_on(n: int, first: list[int]) -> None:
    kept = KeptRows({"x": np.arange(3)[:, None], "note": texts("0", "1", "2")}, {})
    found = kept.first(n)
    assert found["x"][:, 0].tolist() == first
    assert found["note"][:, 0].tolist() == [str(i).encode() for i in first]


def test_the_sizes_of_a_row_are_those_of_the_inputs_that_are_asked_for() -> None:
    kept = KeptRows({"image": np.zeros((2, 3, 4, 5)), "age": np.zeros((2, 1)), "one": np.zeros(2)}, {})
    assert kept.sizes(["image", "age", "one"]) == {"image": (3, 4, 5), "age": (1,), "one": ()}
    assert kept.sizes({"age", "no such input"}) == {"age": (1,)}
