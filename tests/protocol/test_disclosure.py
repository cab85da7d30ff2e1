"""A tier changes values only: never a name, a shape, a dtype or which value is the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from gateway.protocol.disclosure import Full, Label, Rounded, Tier, Top, disclose

Array = NDArray[Any]
tiers = (
    st.just(Full())
    | st.builds(Rounded, st.integers(0, 15))
    | st.builds(Top, st.integers(1, 6))
    | st.just(Label())
)
dtypes = st.sampled_from([np.float16, np.float32, np.float64])


@st.composite
def scores(draw: st.DrawFn) -> Array:
    """Any finite scores; often so near each other that rounding ties them."""
    dtype = np.dtype(draw(dtypes))
    shape = (draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 6), max_size=2)))
    anything = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    near = st.integers(0, 400).map(lambda i: float(dtype.type(i / 1000 + 0.3)))
    unit = st.floats(0, 1, width=16).map(float)
    return draw(npst.arrays(dtype, shape, elements=draw(st.sampled_from([anything, near, unit]))))


def as_bf16(array: Array) -> Array:
    """The values without what BF16 cannot hold of them."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)


@given(scores(), tiers)
def test_no_tier_changes_name_shape_dtype_or_argmax(array: Array, tier: Tier) -> None:
    before = array.copy()
    shown = disclose({"p": array}, tier)
    assert list(shown) == ["p"]
    assert (shown["p"].shape, shown["p"].dtype) == (array.shape, array.dtype)
    assert (rows(shown["p"]).argmax(1) == rows(array).argmax(1)).all()
    assert np.isfinite(shown["p"]).all()
    assert array.tobytes() == before.tobytes()


@given(scores().filter(lambda array: array.dtype == np.float32).map(as_bf16), tiers)
def test_disclosed_bf16_is_bf16_with_the_same_argmax(array: Array, tier: Tier) -> None:
    shown = disclose({"p": array, "q": array}, tier, {"p"})["p"]
    assert (as_bf16(shown) == shown).all()
    assert np.isfinite(shown).all()
    assert (shown.shape, shown.dtype) == (array.shape, array.dtype)
    assert (rows(shown).argmax(1) == rows(array).argmax(1)).all()


def test_rounding_for_bf16_lifts_the_largest_where_the_digits_tie() -> None:
    p = as_bf16(np.array([[0.4980469, 0.5]], np.float32))
    assert disclose({"p": p}, Rounded(2), {"p"})["p"].tolist() == [[0.5, 0.51171875]]


@given(scores(), tiers)
def test_a_batch_is_disclosed_as_its_rows_are(array: Array, tier: Tier) -> None:
    apart = [disclose({"p": array[i : i + 1]}, tier)["p"] for i in range(len(array))]
    assert disclose({"p": array}, tier)["p"].tobytes() == np.concatenate(apart).tobytes()


@given(scores())
def test_full_is_the_same_array(array: Array) -> None:
    assert disclose({"p": array}, Full())["p"] is array


@given(npst.arrays(np.float64, (2, 5), elements=st.floats(0, 1)), st.integers(0, 6))
def test_rounded_is_within_a_step_and_a_half(array: Array, digits: int) -> None:
    shown = disclose({"p": array}, Rounded(digits))["p"]
    step = 10.0**-digits
    best = np.arange(5) == array.argmax(1)[:, None]
    assert (np.abs(shown - array) <= np.where(best, 1.5, 0.5) * step + 1e-12).all()
    assert (np.abs(shown / step - np.rint(shown / step)) < 1e-6).all()


def test_rounding_that_ties_lifts_the_largest_by_one_step_and_nothing_else() -> None:
    p = np.array([[0.4951, 0.4953, 0.0096], [0.001, 0.002, 0.997]], np.float32)
    expected = np.array([[0.5, 0.51, 0.01], [0, 0, 1]], np.float32)
    assert disclose({"p": p}, Rounded(2))["p"].tolist() == expected.tolist()


def test_rounding_leaves_no_sign_on_zero() -> None:
    assert not np.signbit(disclose({"z": np.array([[-0.001, 1.0]])}, Rounded(2))["z"]).any()


def test_a_flat_distribution_is_never_rounded_below_zero() -> None:
    p = np.full((1, 1000), 0.001, np.float32)
    p[0, 500] += 0.0001
    shown = disclose({"p": p}, Rounded(2))["p"]
    assert shown.min() == 0
    assert shown.argmax() == 500


@given(npst.arrays(np.float32, (3, 6), elements=st.floats(0.0625, 1, width=32)), st.integers(1, 8))
def test_top_shows_exactly_k_values_as_they_are(array: Array, k: int) -> None:
    shown = disclose({"p": array}, Top(k))["p"]
    kept = shown != 0
    assert (kept.sum(1) == min(k, 6)).all()
    assert (shown[kept] == array[kept]).all()
    assert (
        np.where(kept, np.inf, array).max(1, where=~kept, initial=0) <= np.where(kept, array, np.inf).min(1)
    ).all()


def test_top_hides_logits_below_the_largest_even_if_all_are_negative() -> None:
    z = np.array([[-3.0, -1.0, -2.0]], np.float32)
    lowest = np.finfo(np.float32).min
    assert disclose({"z": z}, Top(1))["z"].tolist() == [[lowest, -1.0, lowest]]
    assert disclose({"z": z + 1}, Top(1))["z"].tolist() == [[lowest, 0.0, lowest]]


def test_label_says_which_and_no_more() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float16)
    assert disclose({"p": p}, Label())["p"].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_single_values_are_only_rounded_and_other_kinds_unchanged() -> None:
    outputs = {
        "price": np.array([[1.23456]]),
        "n": np.array([[3, 9]]),
        "t": np.array([["a"]], object),
        "e": np.zeros((1, 0)),
    }
    for tier in (Top(1), Label()):
        shown = disclose(outputs, tier)
        assert all(shown[name] is outputs[name] for name in outputs)
    assert disclose(outputs, Rounded(2))["price"].tolist() == [[1.23]]


@pytest.mark.parametrize(("tier", "number"), [(Rounded, -1), (Rounded, 16), (Top, 0)])
def test_an_invalid_tier_is_refused(tier: type[Rounded] | type[Top], number: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        tier(number)
