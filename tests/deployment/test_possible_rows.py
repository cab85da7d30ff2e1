"""Rows of outputs that are no answer: not of the certified type, no probabilities, or of no known class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fallbacks.predictor import ModelTensor
from fallbacks.roles import SUM_TOLERANCE, not_distributions
from gateway.deployment.possible_rows import possible_rows
from gateway.protocol.targets import NO_FORM, Classes, Number, Target

F4 = np.dtype(np.float32)
PROBABILITIES = ModelTensor("probabilities", F4, (None, 3))
GOOD = [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]
CLASSES = Classes(("a", "b", "c"), (4, 5, 6))


def found(p: Any, dtype: Any = np.float32) -> list[bool]:
    possible = possible_rows([PROBABILITIES], CLASSES)
    assert possible is not None
    return possible({"probabilities": np.array(p, dtype)}).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "wrong", [[3.0, -1.0, 2.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5]]
)
def test_a_row_that_is_no_distribution_has_no_answer_and_its_neighbours_have(wrong: Any, dtype: Any) -> None:
    assert found(GOOD, dtype) == [True, True]
    assert found([GOOD[0], wrong, GOOD[1]], dtype) == [True, False, True]


def test_logits_in_place_of_probabilities_are_no_answer() -> None:
    assert found(np.array(GOOD) * 37.5 + 1) == [False, False]


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.just(3)), elements=st.floats(-2, 2, width=32)))
def test_the_short_way_agrees_with_the_whole_one(p: Any) -> None:
    assert found(p) == (~not_distributions(p)).tolist()


def test_a_sum_at_the_edge_of_rounding_agrees_too() -> None:
    for off in (0.4, 0.6, 0.99, 1.01, -0.4, -0.6, -0.99, -1.01):
        row = np.array([[0.2, 0.3, 0.5 + off * SUM_TOLERANCE]], np.float32)
        assert found(row) == (~not_distributions(row)).tolist()


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(
    ("values", "labels", "dtype"),
    [
        ((4, 5, 6), [4, 7, 6], np.int64),
        ((b"x", b"y"), [b"x", b"z", b"y"], object),
        ((b"x\0", b"x"), [b"x\0", b"x\0\0", b"x"], object),
    ],
)
def test_a_label_that_the_model_does_not_have_is_no_answer(
    shape: tuple[int, ...], values: Any, labels: Any, dtype: Any
) -> None:
    label = ModelTensor("label", np.dtype(dtype), (None, *shape[1:]))
    possible = possible_rows([label], Classes(("a", "b", "c")[: len(values)], values))
    assert possible is not None
    assert possible({"label": np.array(labels, dtype).reshape(shape)}).tolist() == [True, False, True]


@pytest.mark.parametrize("target", [Number(0.0, 1.0), NO_FORM])
def test_of_numbers_and_opaque_outputs_any_finite_one_can_be_an_answer(target: Target) -> None:
    assert possible_rows([ModelTensor("value", F4, (None,))], target) is None
