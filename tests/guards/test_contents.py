"""Contents: equal exactly for rows that are equal in everything that was sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.contents import FORMS_KEPT, Contents

SALT = bytes(range(32))
INPUTS: dict[str, NDArray[Any]] = {
    "image": np.random.default_rng(0).random((5, 3, 4, 4), np.float32),
    "age": np.arange(5, dtype=np.int64).reshape(5, 1),
    "flag": np.array([[True], [False], [True], [True], [False]]),
    "half": np.arange(10, dtype=np.float16).reshape(5, 2),
    "text": np.array([["a", "bc"], ["ab", "c"], ["", "abc"], ["abc", ""], ["é", "e"]], object),
}


def of(inputs: dict[str, NDArray[Any]]) -> NDArray[np.uint64]:
    return Contents(SALT).of(inputs, 5)


def test_a_row_has_the_same_content_in_every_batch_and_another_under_another_salt() -> None:
    whole = of(INPUTS)
    alone = [int(Contents(SALT).of({k: a[i : i + 1] for k, a in INPUTS.items()}, 1)[0]) for i in range(5)]
    assert whole.tolist() == alone
    assert len(set(alone)) == 5
    assert not set(alone) & set(Contents(bytes(32)).of(INPUTS, 5).tolist())


@pytest.mark.parametrize("name", INPUTS)
def test_a_change_of_any_input_changes_the_content_of_its_row_alone(name: str) -> None:
    changed = INPUTS[name].copy()
    changed.reshape(5, -1)[2, 0] = "x" if name == "text" else changed.reshape(5, -1)[2, 0] == 0
    assert (of(INPUTS) != of({**INPUTS, name: changed})).tolist() == [False, False, True, False, False]


def test_texts_that_join_to_the_same_are_told_apart() -> None:
    found = of({"text": INPUTS["text"]})
    assert len(set(found.tolist())) == 5


def test_equal_bytes_of_another_name_type_or_shape_are_another_content() -> None:
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    forms: list[dict[str, NDArray[Any]]] = [
        {"x": x},
        {"y": x},
        {"x": x.view(np.int32)},
        {"x": x.reshape(5, 2, 2)},
        {"x": x.view(np.int64)},
    ]
    assert len({int(of(one)[3]) for one in forms}) == 5
    assert of({"x": np.zeros((5, 4))})[0] != of({"x": np.zeros((5, 5))})[0]


def test_a_negative_zero_is_another_content() -> None:
    assert (of({"x": np.full((5, 1), -0.0)}) != of({"x": np.zeros((5, 1))})).all()


def test_keys_of_open_sizes_stay_bounded() -> None:
    contents = Contents(SALT)
    for size in range(3 * FORMS_KEPT):
        contents.of({"x": np.zeros((1, size), np.float32)}, 1)
    assert len(contents._keys) <= FORMS_KEPT


def test_bytes_are_texts_too_and_no_rows_have_no_content() -> None:
    inputs = {"text": np.array([[b"a"], [b"b"]], object)}
    assert len(set(Contents(SALT).of(inputs, 2).tolist())) == 2
    assert Contents(SALT).of({"x": np.zeros((0, 3), np.float32)}, 0).tolist() == []
