"""What is kept beside a case for the queue: the beginning of its row, and what a model would have said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.review_summary import brief, format_number, model_view


def text(*items: str | bytes) -> Any:
    array = np.empty((1, len(items)), object)
    array[0] = [item.encode() if isinstance(item, str) else item for item in items]
    return array


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"age": np.array([[41]]), "plan": text("gold")}, "age 41, plan gold"),
        ({"x": np.array([[1.5, 2.0]], np.float32)}, "x 1.5 2"),
        ({"x": np.arange(16.0)[None]}, "x 0 1 2 3 4 5 … (16 numbers)"),
        ({"x": np.array([np.nan])}, "x missing"),
        ({"on": np.array([[True]])}, "on 1"),
        ({"t": text("Dear  sir,\n\tplease")}, "Dear sir, please"),
        ({"t": text("one", "two")}, "one (2 texts)"),
        ({"t": text("caf\xe9".encode("latin-1"))}, r"caf\xe9"),
        ({"t": text("")}, ""),
        ({"t": text("x" * 1000)}, "x" * 160 + "…"),
        ({"image": np.zeros((1, 3, 8, 8))}, ""),
        ({"image": np.zeros((1, 3, 8, 8)), "age": np.array([[3]])}, "age 3"),
        ({"image": np.zeros((1, 3, 8, 8)), "t": text("hello")}, "t hello"),
        (
            {f"c{i}": np.array([i]) for i in range(11)},
            "c0 0, c1 1, c2 2, c3 3, c4 4, c5 5, c6 6, c7 7, … 3 more",
        ),
        ({"x": np.ones((1, 0))}, ""),
        ({}, ""),
    ],
)
def test_a_row_begins_with_its_columns_and_values(row: Any, line: str) -> None:
    assert brief(row) == line


@given(
    st.dictionaries(
        st.text(max_size=300),
        st.one_of(st.binary(max_size=300).map(text), st.just(np.ones((1, 900)))),
        max_size=20,
    )
)
def test_the_beginning_of_any_row_is_short_and_one_line(row: Any) -> None:
    assert len(brief(row)) < 1000
    assert "\n" not in "".join(brief({"t": array}) for array in row.values())


def test_a_long_text_is_not_read_to_its_end() -> None:
    assert brief({"t": text(b"ab " * 10_000_000)}).startswith("ab ab ab")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (2**63, str(2**63)),
        (1_000_000.0, "1000000"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.3"),
        (1234567.5, "1.23457e+06"),
        (1e30, "1e+30"),
        (float("nan"), "missing"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_is_shown_as_people_write_it(value: float, shown: str) -> None:
    assert format_number(value) == shown


@pytest.mark.parametrize(
    ("outputs", "view"),
    [
        ({"probabilities": np.array([[0.05, 0.6, 0.0, 0.35]])}, [[1, 0.6], [3, 0.35], [0, 0.05]]),
        (
            {"value": np.array([[2.5]]), "lower": np.array([2.0]), "upper": np.array([3])},
            {"value": 2.5, "lower": 2.0, "upper": 3.0},
        ),
        ({"value": np.array([2.5]), "lower": np.array([np.nan])}, {"value": 2.5}),
        ({"value": np.array([np.inf])}, []),
        ({"value": np.array([[1.0, 2.0]])}, []),
        ({"label": np.array([7])}, {"label": 7}),
        ({"label": text("newt\xe9")}, {"label": "newt\xe9"}),
        ({"label": text(b"\xff" * 100)}, {"label": r"\xff" * 12}),
        ({"label": np.array([1]), "probabilities": np.array([[0.4, 0.6]])}, [[1, 0.6], [0, 0.4]]),
        ({"boxes": np.zeros((1, 4))}, []),
        (None, []),
    ],
)
def test_a_models_view_is_its_classes_or_its_number_or_its_label(outputs: Any, view: Any) -> None:
    assert model_view(outputs) == view
