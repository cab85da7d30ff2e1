"""The group column of a file of held-out rows; datatypes are in `deployment/test_typed_policies.py`."""

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
    x, y, read_group = read({**HELD, "group": group}, contract("a"))
    assert (list(x), len(y)) == (["a"], 3)
    assert read_group is not None
    assert read_group.tolist() == group.tolist()


def test_a_file_need_not_name_groups() -> None:
    assert read(HELD, contract("a"))[2] is None


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
    held = {**HELD, "group": np.array([0.5, 1.5, 2.5])}
    x, _, group = read(held, contract("a", "group"))
    assert x["group"].tolist() == [0.5, 1.5, 2.5]
    assert group is None
