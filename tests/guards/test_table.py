"""Table: every input becomes columns of numbers with readable names, or is named with the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.arrays import load, pack, save, unpack
from guards.table import Table

NOTHING: frozenset[str] = frozenset()
RNG = np.random.default_rng(0)
N = 400


def texts(values: Sequence[bytes], shape: tuple[int, ...] = (-1,)) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def fitted(inputs: dict[str, NDArray[Any]], missing: frozenset[str] = NOTHING) -> Table:
    table = Table.fit(inputs, missing, NOTHING)
    assert table is not None
    return table


def plans(n: int, seed: int = 0) -> list[bytes]:
    found: list[bytes] = (
        np.random.default_rng(seed)
        .choice([b"free", b"pro", b"team", b""], n, p=[0.6, 0.3, 0.05, 0.05])
        .tolist()
    )
    return found


def mixed(n: int) -> dict[str, NDArray[Any]]:
    return {
        "age": RNG.integers(18, 90, n),
        "paid": RNG.random((n, 1)) < 0.5,
        "income": RNG.lognormal(10, 1, n),
        "x": RNG.standard_normal((n, 2)).astype(np.float16),
        "grid": RNG.standard_normal((n, 2, 2)).astype(np.float32),
        "plan": texts(plans(n)),
        "tags": texts(plans(2 * n), (n, 2)),
        "review": texts([b"a fine day in town, number %d" % i for i in range(n)], (n, 1)),
    }


MIXED = mixed(N)
TABLE = fitted(MIXED)


def test_every_column_has_a_readable_name() -> None:
    assert TABLE.columns == (
        *("age", "paid", "income", "x[0]", "x[1]", "grid[0,0]", "grid[0,1]", "grid[1,0]", "grid[1,1]"),
        *("plan", "tags[0]", "tags[1]", "review: length", "review: surprise"),
    )
    assert TABLE.unguarded == TABLE.reasons == ()


def test_numbers_of_any_type_are_read_as_they_are() -> None:
    t = TABLE.read(MIXED)
    assert t.dtype == np.float32
    assert t.shape == (N, len(TABLE.columns))
    np.testing.assert_array_equal(t[:, 0], MIXED["age"])
    np.testing.assert_array_equal(t[:, 1:2], MIXED["paid"])
    np.testing.assert_array_equal(t[:, 2], MIXED["income"].astype(np.float32))
    np.testing.assert_array_equal(t[:, 5:9].reshape(N, 2, 2), MIXED["grid"])
    huge = {**MIXED, "income": np.full(N, 1e300)}
    assert np.isinf(TABLE.read(huge)[:, 2]).all()


def test_one_matrix_of_float32_is_returned_without_a_copy() -> None:
    x = RNG.standard_normal((N, 16)).astype(np.float32)
    table = fitted({"x": x})
    assert table.read({"x": x}) is x
    np.testing.assert_array_equal(table.read({"x": x.astype(np.float64)}), x)


def test_rows_are_read_alike_alone_and_together_and_none_at_all() -> None:
    alone = [TABLE.read({name: array[i : i + 1] for name, array in MIXED.items()}) for i in range(20)]
    np.testing.assert_array_equal(np.concatenate(alone), TABLE.read(MIXED)[:20])
    assert TABLE.read({name: array[:0] for name, array in MIXED.items()}).shape == (0, 14)


def test_round_trip_through_a_file_reads_the_same(tmp_path: Path) -> None:
    save(tmp_path / "t.npz", pack("table", TABLE))
    back = unpack(Table, "table", load(tmp_path / "t.npz"))
    assert back.columns == TABLE.columns
    assert back.read(MIXED).tobytes() == TABLE.read(MIXED).tobytes()


def test_what_cannot_be_read_is_named_and_pictures_are_left_to_others() -> None:
    inputs: dict[str, NDArray[Any]] = {
        "age": np.arange(N),
        "photo": np.zeros((N, 1, 8, 8), np.float32),
        "tokens": texts([b"a"] * (17 * N), (N, 17)),
        "empty": np.zeros((N, 0)),
    }
    table = Table.fit(inputs, NOTHING, frozenset({"photo"}))
    assert table is not None
    assert table.columns == ("age",)
    assert dict(zip(table.unguarded, table.reasons, strict=True)) == {
        "tokens": "it holds 17 texts a row; 16 are read",
        "empty": "it holds no values",
    }
    assert Table.fit({"photo": inputs["photo"]}, NOTHING, frozenset({"photo"})) is None


def test_missing_numbers_stay_missing_where_they_are_allowed_and_are_refused_elsewhere() -> None:
    age = RNG.uniform(18, 90, N)
    age[[7, 9]] = np.nan
    table = fitted({"age": age}, frozenset({"age"}))
    np.testing.assert_array_equal(table.read({"age": age})[:, 0], age.astype(np.float32))
    with pytest.raises(
        ValueError, match=r"^age: holds NaN, first in row 7; remove it, or say `missing: allow`"
    ):
        Table.fit({"age": age}, NOTHING, NOTHING)


def test_two_parts_of_one_input_are_written_beside_each_other() -> None:
    table = fitted({"tags": MIXED["tags"]})
    first, second = (fitted({"tag": MIXED["tags"][:, i]}) for i in (0, 1))
    expected = [first.read({"tag": MIXED["tags"][:, 0]}), second.read({"tag": MIXED["tags"][:, 1]})]
    np.testing.assert_array_equal(table.read(MIXED), np.concatenate(expected, 1))


def test_an_unseen_category_is_rarer_than_every_seen_one() -> None:
    table = fitted({"plan": MIXED["plan"]})
    seen, unseen = table.read({"plan": MIXED["plan"]}), table.read({"plan": texts([b"platinum"])})
    assert unseen[0, 0] > seen.max() + 2.9


def test_no_rows_to_fit_on_are_no_error_of_the_table() -> None:
    """A file of two rows leaves none to fit on; which promise that breaks is told by those that need rows."""
    inputs: dict[str, NDArray[Any]] = {
        "age": np.zeros((0, 1)),
        "x": np.zeros((0, 2, 3), np.float32),
        "word": np.zeros((0, 1), object),
    }
    table = Table.fit(inputs, frozenset(), frozenset())
    assert table is not None
    assert table.columns[0] == "age"
    assert table.columns[6] == "x[1,2]"
    assert table.read(inputs).shape == (0, len(table.columns))
