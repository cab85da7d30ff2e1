"""What a file of held-out rows may hold, and the message for the rest; datatypes: `test_typed_policies`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.calibration.dataset import read
from gateway.protocol.contract import Contract, TensorSpec

HELD: dict[str, NDArray[Any]] = {"a": np.zeros(3, np.float32), "y": np.zeros(3, np.int64)}


def contract(*inputs: str) -> Contract:
    float32 = np.dtype(np.float32)
    specs = tuple(TensorSpec(name, float32, (None,)) for name in inputs)
    return Contract("m", specs, (TensorSpec("p", float32, (None, 2)),), 8, "1")


@pytest.mark.parametrize(
    "group",
    [
        np.array([3, -1, 3]),
        np.array([2**64 - 1, 0, 0], np.uint64),
        np.array(["a", "", "a"]),
        np.array([b"a"] * 3),
    ],
)
def test_a_group_is_an_integer_or_a_text_a_row(group: NDArray[Any]) -> None:
    held = read({**HELD, "group": group}, contract("a"))
    assert (list(held.x), held.y is HELD["y"], held.unused) == (["a"], True, ())
    assert held.group is not None
    assert held.group.tolist() == group.tolist()


def test_a_file_need_not_name_groups() -> None:
    assert read(HELD, contract("a")).group is None


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (np.array([1.0, 2.0, 2.0]), r"group: is float64\[3\], not one integer or text a row"),
        (np.array([True, False, True]), r"group: is bool\[3\], not one integer or text a row"),
        (np.array([[1], [2], [2]]), r"group: is int64\[3, 1\], not one integer or text a row"),
        (np.array(1), r"group: is int64\[\], not one integer or text a row"),
        (np.array([1, 2]), "group: holds 2 values, not one for each of 3 rows"),
    ],
)
def test_another_group_column_is_reported(group: NDArray[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read({**HELD, "group": group}, contract("a"))


def test_an_input_called_group_is_an_input_and_no_group_column() -> None:
    held = read({**HELD, "group": np.array([0.5, 1.5, 2.5])}, contract("a", "group"))
    assert held.x["group"].tolist() == [0.5, 1.5, 2.5]
    assert held.group is None


FLOAT32, TEXT = np.dtype(np.float32), np.dtype(np.object_)


def of(*inputs: TensorSpec, outputs: tuple[str, ...] = ("p",)) -> Contract:
    return Contract("m", inputs, tuple(TensorSpec(name, FLOAT32, (None, 2)) for name in outputs), 8, "1")


def refusal(arrays: dict[str, Any], contract: Contract, *, labels_needed: bool = True) -> str:
    held = {name: np.array(values) for name, values in arrays.items()}
    with pytest.raises(ValueError) as refused:
        read(held, contract, labels_needed=labels_needed)
    return str(refused.value)


@pytest.mark.parametrize("y", [[2, 7], [0.5, -1.0], [True, False], ["no", "jä"]])
def test_labels_are_returned_as_the_file_has_them(y: list[Any]) -> None:
    labels = read({"a": np.zeros(2), "y": np.array(y)}, contract("a")).y
    assert labels is not None
    assert labels.dtype == np.array(y).dtype
    assert labels.tolist() == y


def test_byte_strings_as_labels_are_text() -> None:
    labels = read({"a": np.zeros(2), "y": np.array(["jä".encode(), b"no"])}, contract("a")).y
    assert labels is not None
    assert labels.tolist() == ["jä", "no"]


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([[1], [2]], "y: is int64[2, 1], not one number or text a row; give y.reshape(-1)"),
        (
            [[0, 1], [1, 0]],
            "y: is int64[2, 2], not one number or text a row; of a column a class, give y.argmax(axis=1)",
        ),
        ([1j, 2], "y: is complex128[2], not one number or text a row"),
        ([0.5, np.nan], "y: holds NaN, first in row 1; leave rows without a label or true value out"),
        ([-np.inf, 1.0], "y: holds infinity, first in row 0; leave rows without a label or true value out"),
        ([b"\xff", b""], "y: holds bytes that are not UTF-8 text; save it with astype(str)"),
        ([], "y: holds no rows"),
    ],
)
def test_other_labels_are_reported(y: list[Any], says: str) -> None:
    assert refusal({"a": [0.0, 1.0], "y": y}, contract("a")) == says


def test_labels_are_missed_only_where_they_are_needed() -> None:
    assert refusal({"a": [1.0], "label": [1]}, contract("a")) == (
        "y: missing: name the array or column of labels, or true values, y; the file holds a, label"
    )
    held = read({"a": np.ones(1), "label": np.ones(1)}, contract("a"), labels_needed=False)
    assert (held.y, held.unused) == (None, ("label",))
    assert refusal({"a": []}, contract("a"), labels_needed=False) == "a: holds no rows"


def test_an_input_called_y_leaves_no_name_for_labels() -> None:
    assert refusal({"a": [1.0], "y": [1.0]}, contract("a", "y")) == (
        "y: is an input of the model, so labels have no name; give that input another name by "
        "`names: {OTHER: y}` on every model of the policy"
    )


def test_columns_fill_inputs_of_one_value_a_row_by_name() -> None:
    inputs = (
        TensorSpec("age", FLOAT32, (None, 1)),
        TensorSpec("city", TEXT, (None, 1)),
        TensorSpec("rooms", np.dtype(np.int64), (None,)),
        TensorSpec("any", FLOAT32, (None, None)),
    )
    table = {
        "city": np.array(["Ulm", ""]),
        "y": np.array([1, 0]),
        "spare": np.array([9, 9]),
        "rooms": np.array([3.0, 4.0]),
        "any": np.array([7, 8]),
        "age": np.array([0.1, 2]),
    }
    held = read(table, of(*inputs))
    assert {name: array.shape for name, array in held.x.items()} == {
        "age": (2, 1),
        "city": (2, 1),
        "rooms": (2,),
        "any": (2, 1),
    }
    assert held.x["age"].tolist() == [[np.float32(0.1)], [2]]
    assert held.x["city"].tolist() == [[b"Ulm"], [b""]]
    assert held.x["rooms"].tolist() == [3, 4]
    assert held.unused == ("spare",)


@pytest.mark.parametrize("width", [3, None])
@pytest.mark.parametrize("dtype", [FLOAT32, np.dtype(np.int64)])
def test_columns_fill_one_input_of_several_numbers_in_the_order_of_the_file(
    width: int | None, dtype: np.dtype[Any]
) -> None:
    table = {
        "b": np.array([1, 2]),
        "y": np.array([0, 1]),
        "a": np.array([3.0, 4.0]),
        "group": np.array(["u", "v"]),
        "c": np.array([True, False]),
        "expected": np.zeros((2, 2)),
    }
    held = read(table, of(TensorSpec("X", dtype, (None, width))))
    assert held.x["X"].dtype == dtype
    assert held.x["X"].tolist() == [[1, 3, 1], [2, 4, 0]]
    assert held.unused == ()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"a": [1.0], "b": [2.0], "id": [7]},
            "X: takes 2 numbers a row, and the file has 3 columns for it: a, b, id; leave out what the model "
            "does not take, or give one array 'X'",
        ),
        (
            {"a": [1.0], "b": ["red"]},
            "b: is text, not numbers that FP32 can hold: row 0 holds 'red'; leave the cell empty where a "
            "value is missing",
        ),
        ({"a": [1.0], "b": ["1"]}, "b: is text, not numbers that FP32 can hold; save it with astype(float)"),
        ({"a": [1.0, 2.0], "b": [1.0]}, "a, b: have different numbers of rows"),
        ({"a": [[1.0, 2.0]]}, "X: missing; the file holds a"),
        ({}, "X: missing; the file holds nothing else"),
        ({"a": [1.0, 2.0], "b": [1.0, np.nan]}, "X: holds NaN, first in row 1, column 'b'; "),
    ],
)
def test_columns_that_do_not_fill_the_one_input_are_named(columns: dict[str, Any], says: str) -> None:
    x = of(TensorSpec("X", FLOAT32, (None, 2)))
    assert refusal({**columns, "y": [0] * len(columns.get("a", [0]))}, x).startswith(says)


def test_missing_inputs_are_named_with_the_nearest_columns() -> None:
    inputs = [TensorSpec(name, FLOAT32, (None, 1)) for name in ("sepal length (cm)", "age", "rooms")]
    table = {"sepal_length_cm": [1.0], "Age": [2.0], "rooms": [3.0], "y": [0]}
    assert refusal(table, of(*inputs)) == (
        "sepal length (cm), age: missing; the file holds sepal_length_cm, Age, rooms; "
        "did you mean 'sepal_length_cm', 'Age'?"
    )


def test_a_long_list_of_columns_is_cut() -> None:
    table = {f"c{i}": [1.0] for i in range(25)} | {"y": [1]}
    assert refusal(table, of(TensorSpec("X", FLOAT32, (None, 2)))).count("c1") == 11
    assert "c19 and 5 more; leave out" in refusal(table, of(TensorSpec("X", FLOAT32, (None, 2))))


def test_nan_names_array_row_and_column_and_how_to_mend_it() -> None:
    spec = TensorSpec("X", FLOAT32, (None, 3))
    x = np.zeros((9, 3))
    x[7, 2] = x[8, 0] = np.nan
    assert refusal({"X": x, "y": np.zeros(9, int)}, of(spec)) == (
        "X: holds NaN, first in row 7, column 2; encode missing values as the model was trained to have "
        "them, or leave such rows out; if the model takes NaN, say `inputs: {X: {missing: allow}}` in the "
        "policy"
    )
    picture = TensorSpec("P", FLOAT32, (None, 1, 3, 3))
    assert "in row 7, at [0, 2, 0]; " in refusal(
        {"P": np.stack([x] * 3, 2).reshape(9, 1, 3, 3), "y": np.zeros(9, int)}, of(picture)
    )


def test_missing_values_are_data_for_the_input_that_may_have_them() -> None:
    spec = TensorSpec("a", FLOAT32, (None, 1), 0.0, 5.0, missing=True)
    held = read({"a": np.array([1.0, np.nan, 5.0]), "y": np.arange(3)}, of(spec))
    np.testing.assert_array_equal(held.x["a"], np.array([[1], [np.nan], [5]], np.float32))
    assert refusal({"a": [np.nan, np.inf], "y": [0, 1]}, of(spec)) == (
        "a: holds infinity, first in row 1; leave such rows out: infinity is never data"
    )
    assert refusal({"a": [np.nan, 6.0], "y": [0, 1]}, of(spec)) == (
        "a: holds values outside 0.0 to 5.0, first 6.0 in row 1"
    )


def test_expected_outputs_are_found_by_the_name_of_the_output() -> None:
    a, p, q = np.zeros(2, np.float32), np.eye(2), np.array(["u", "v"])
    file: dict[str, NDArray[Any]] = {"a": a, "y": np.arange(2), "expected": p, "expected.q": q}
    found = read(file, of(TensorSpec("a", FLOAT32, (None,)), outputs=("p", "q"))).expected
    assert (list(found), found["p"] is p, found["q"] is q) == (["p", "q"], True, True)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"expected.prob": [0, 1]}, "expected.prob: 'prob' is no exposed output of the model: p, q"),
        ({"expected.p": [0]}, "expected.p: has shape (1,), not one entry for each of 2 rows"),
        ({"expected": 3}, "expected: has shape (), not one entry for each of 2 rows"),
        (
            {"expected": [0, 1], "expected.p": [0, 1]},
            "expected.p: is output 'p', for which the file has two arrays",
        ),
    ],
)
def test_other_expected_outputs_are_reported(expected: dict[str, Any], says: str) -> None:
    a = TensorSpec("a", FLOAT32, (None,))
    assert refusal({"a": [0.0, 1.0], "y": [0, 1], **expected}, of(a, outputs=("p", "q"))) == says


def test_an_input_called_expected_is_an_input() -> None:
    held = read({**HELD, "expected": np.arange(3.0)}, contract("a", "expected"))
    assert held.x["expected"].tolist() == [0, 1, 2]
    assert held.expected == {}
