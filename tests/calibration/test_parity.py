"""An export is held to the outputs of its original: tolerances, labels, and the shares that are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.calibration.parity import ABSOLUTE, RELATIVE, OutputParity, parity

NAN, INF = float("nan"), float("inf")


def one(expected: Any, output: Any) -> OutputParity:
    (found,) = parity({"p": np.array(expected)}, {"p": np.array(output)}).outputs
    return found


def probabilities(n: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).dirichlet(np.ones(3), n)


def test_rounding_to_float32_is_no_difference() -> None:
    p = probabilities(1000)
    found = parity({"p": p}, {"p": p.astype(np.float32)})
    (of_p,) = found.outputs
    assert (of_p.differing, of_p.first_row, of_p.other_argmax, of_p.rows) == (0, None, 0, 1000)
    assert of_p.largest_absolute is not None
    assert 0 < of_p.largest_absolute < 1e-7
    assert found.problem == ""
    assert found.sentence.startswith(
        "Beside the original's outputs for 1000 rows: p: no row differs, by at most "
    )


@given(st.floats(-1e6, 1e6), st.floats(-2, 2))
def test_a_float_agrees_up_to_the_tolerance_and_no_further(wanted: float, share: float) -> None:
    allowed = ABSOLUTE + RELATIVE * abs(wanted)
    if abs(abs(share) - 1) > 1e-6:
        assert (one([wanted], [wanted + share * allowed]).differing == 1) == (abs(share) > 1)


@pytest.mark.parametrize(
    ("expected", "output", "differing", "absolute"),
    [
        ([NAN, 1.0], [NAN, 1.0], 0.0, 0.0),
        ([INF, -INF], [INF, -INF], 0.0, 0.0),
        ([INF, 1.0], [-INF, 1.0], 0.5, INF),
        ([INF, 1.0], [5.0, 1.0], 0.5, INF),
        ([NAN, 1.0], [5.0, 1.0], 0.5, INF),
        ([1.0, 1.0], [NAN, INF], 1.0, INF),
    ],
)
def test_what_is_not_finite_agrees_with_itself_alone(
    expected: list[float], output: list[float], differing: float, absolute: float
) -> None:
    found = one(expected, output)
    assert (found.differing, found.largest_absolute) == (differing, absolute)


def test_the_first_row_the_shares_and_the_largest_differences_are_told() -> None:
    p = probabilities(400)
    q = p.copy()
    q[[7, 100]] = q[[7, 100]][:, [1, 2, 0]]
    q[200] += 0.01
    found = parity({"p": p}, {"p": q})
    (of_p,) = found.outputs
    gaps = np.abs(q - p)
    assert (of_p.differing, of_p.first_row, of_p.other_argmax) == (3 / 400, 7, 2 / 400)
    assert of_p.largest_absolute == gaps.max()
    assert of_p.largest_relative == pytest.approx((gaps / p).max())
    assert found.problem == ""


def test_more_than_a_hundredth_of_the_rows_is_a_problem() -> None:
    p = probabilities(400)
    swapped = p.copy()
    others = np.flatnonzero(p.argmax(axis=1) != 1)[:5]  # the middle column stays where it is
    swapped[others] = swapped[others, ::-1]
    few = swapped.copy()
    few[others[-1]] = p[others[-1]]
    assert parity({"p": p}, {"p": few}).problem == ""
    assert parity({"p": p}, {"p": swapped}).problem.startswith(
        f"p is another answer than expected in 1.2% of the rows, and differs first in row {others[0]}: this"
    )


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        (["u", "jä"], np.array([b"u", "jä".encode()], object)),
        (np.array([b"u", b"v"]), np.array([b"u", b"v"], object)),
        ([3, 4], np.array([3, 4])),
        ([3.0, 4.0], np.array([[3], [4]])),
        ([True, False], np.array([True, False])),
    ],
)
def test_labels_agree_if_they_are_equal(expected: Any, output: NDArray[Any]) -> None:
    found = one(expected, output)
    assert (found.differing, found.largest_absolute, found.other_argmax) == (0, None, None)
    assert str(found) == "p: no row differs"
    assert one(expected, output[::-1]).differing == 1


def test_a_column_and_its_rows_are_the_same() -> None:
    assert one(np.ones((3, 1)), np.ones(3)).differing == 0


@pytest.mark.parametrize(
    ("expected", "output", "says"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), r"expected\.p: has shape \(3, 2\); the model gives \(3, 3\)"),
        (np.ones(3), np.ones(4), r"expected\.p: has shape \(3,\); the model gives \(4,\)"),
        (np.array(["1"]), np.ones(1), r"expected\.p: holds text; the model gives numbers"),
        (np.ones(1), np.array([b"1"], object), r"expected\.p: holds numbers; the model gives text"),
    ],
)
def test_what_cannot_be_compared_is_named(expected: NDArray[Any], output: NDArray[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parity({"p": expected}, {"p": output})


def test_an_output_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected\.q: the model has no output 'q'"):
        parity({"q": np.ones(1)}, {"p": np.ones(1)})


def test_nothing_expected_is_nothing_to_tell() -> None:
    found = parity({}, {"p": np.ones(1)})
    assert (found.outputs, found.sentence, found.problem) == ((), "", "")


def test_a_forest_whose_thresholds_were_rounded_is_told_and_is_no_other_model() -> None:
    """As skl2onnx exports one behind a scaler: a third of the rows is beyond the tolerance."""
    rng = np.random.default_rng(1)
    rents = rng.normal(1200, 400, 300)
    rounded = rents + np.where(rng.random(300) < 0.33, 12.0, 0.0)
    found = parity({"value": rents}, {"value": rounded})
    assert found.outputs[0].differing > 0.25
    assert found.problem == ""
    assert parity({"value": rents}, {"value": rents * 1.2}).problem
