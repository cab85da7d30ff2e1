"""Probabilities that a model leaves out are made of what it returns, alike for a file and for an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fallbacks.predictor import LoadedModel, ModelTensor
from fallbacks.roles import complement, logistic, not_distributions, softmax, with_roles
from tests.fallbacks.conftest import Load, export
from tests.fallbacks.oip.test_upstream import Doubles, upstream

F2, F4, F8 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
ELEMENTS = {F2: TensorProto.FLOAT16, F4: TensorProto.FLOAT, F8: TensorProto.DOUBLE}
dtypes = pytest.mark.parametrize("dtype", [F2, F4, F8], ids=str)
STEP = {F2: 1e-3, F4: 1e-6, F8: 1e-14}


def echo(*outputs: tuple[str, tuple[int | str, ...]], dtype: Any = F4, element: int | None = None) -> Any:
    """A model whose every output is its input x, all of one shape."""
    kind = ELEMENTS[dtype] if element is None else element
    shape = list(outputs[0][1])
    return export(
        [helper.make_node("Identity", ["x"], [name]) for name, _ in outputs],
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in outputs],
    )


def softmax64(z: NDArray[Any]) -> NDArray[np.float64]:
    odds = np.exp(z.astype(np.float64) - z.astype(np.float64).max(1, keepdims=True))
    p: NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return p


@dtypes
def test_logits_alone_give_probabilities_of_their_own_dtype(load: Load, dtype: Any) -> None:
    one = with_roles(load(echo(("logits", ("n", 3)), dtype=dtype)))
    assert one.outputs == (
        ModelTensor("logits", dtype, (None, 3)),
        ModelTensor("probabilities", dtype, (None, 3)),
    )
    z = np.array([[1, 2, 3], [-1e4, 0, 1e4], [0, 0, 0]], dtype)
    for got in (one.run({"x": z}), asyncio.run(one.predict({"x": z}))):
        assert (got["logits"] == z).all()
        assert got["probabilities"].dtype == dtype
        np.testing.assert_allclose(got["probabilities"], softmax64(z), atol=STEP[dtype])


@dtypes
@pytest.mark.parametrize("shape", [("n",), ("n", 1)], ids=["a number a row", "a column"])
def test_one_probability_becomes_those_of_two_classes(
    load: Load, dtype: Any, shape: tuple[int | str, ...]
) -> None:
    one = with_roles(load(echo(("probabilities", shape), ("features", shape), dtype=dtype)))
    two, features = one.outputs
    assert two == ModelTensor("probabilities", dtype, (None, 2))
    assert (features.name, len(features.shape)) == ("features", len(shape))
    p = np.array([0, 0.25, 1], dtype).reshape(3, *(1,) * (len(shape) - 1))
    for got in (one.run({"x": p}), asyncio.run(one.predict({"x": p}))):
        assert got["probabilities"].dtype == dtype
        assert got["probabilities"].tolist() == [[1, 0], [0.75, 0.25], [0, 1]]
        assert got["features"].shape == p.shape


@dtypes
@pytest.mark.parametrize("shape", [("n",), ("n", 1)], ids=["a number a row", "a column"])
def test_one_logit_becomes_the_probabilities_of_two_classes(
    load: Load, dtype: Any, shape: tuple[int | str, ...]
) -> None:
    one = with_roles(load(echo(("logits", shape), dtype=dtype)))
    assert one.outputs[1] == ModelTensor("probabilities", dtype, (None, 2))
    z = np.array([-1e4, -1, 0, 2, 1e4], dtype).reshape(5, *(1,) * (len(shape) - 1))
    got = one.run({"x": z})["probabilities"]
    second = np.array([0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2)), 1])
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.stack([1 - second, second], axis=1), atol=STEP[dtype])


def test_what_is_made_of_bfloat16_is_float32(load: Load) -> None:
    one = with_roles(load(echo(("probabilities", ("n", 1)), element=TensorProto.BFLOAT16)))
    assert one.outputs == (ModelTensor("probabilities", F4, (None, 2)),)
    tiny = np.array([[2**-10]], F4)
    assert one.run({"x": tiny})["probabilities"].tolist() == [[1 - 2**-10, 2**-10]]


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param([("probabilities", ("n", 3))], id="probabilities"),
        pytest.param([("probabilities", ("n", 3)), ("logits", ("n", 3))], id="probabilities and logits"),
        pytest.param([("probabilities", ("n", "k"))], id="probabilities of unknown width"),
        pytest.param([("logits", ("n", 4, 3))], id="logits of a sequence"),
        pytest.param([("features", ("n", 3))], id="neither"),
    ],
)
def test_a_model_that_needs_nothing_is_returned_itself(load: Load, outputs: Any) -> None:
    one = load(echo(*outputs))
    assert with_roles(one) is one


@pytest.mark.parametrize("name", ["probabilities", "logits"])
def test_outputs_that_are_no_floating_numbers_are_left_alone(load: Load, name: str) -> None:
    one = load(echo((name, ("n", 1)), element=TensorProto.INT64))
    assert with_roles(one) is one


def test_the_rest_is_the_models_own_and_the_digest_names_the_conversion(load: Load) -> None:
    content = echo(("logits", ("n", 3)))
    plain, model = load(content), load(content)
    one: LoadedModel = with_roles(model)
    assert one.inputs == model.inputs
    assert one.classes == model.classes
    assert one.digest == with_roles(plain).digest != plain.digest
    assert one.digest != with_roles(load(content, names={"probabilities": "logits", "z": "x"})).digest
    x = np.array([[1, 2, 3]], F4)
    np.testing.assert_allclose(one.run({"x": x})["probabilities"], softmax64(x), rtol=1e-6)
    one.close()
    asyncio.run(one.closed())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(model.predict({"x": np.zeros((1, 3), F4)}))


def test_an_upstream_that_gives_logits_gives_probabilities_too() -> None:
    async def scene() -> None:
        async with upstream(Doubles(), names={"logits": "y"}) as (_, model):
            one = with_roles(model)
            assert one.outputs[1] == ModelTensor("probabilities", F4, (None, 2))
            x = np.array([[1, 2], [0, 0]], F4)
            got = await one.predict({"x": x})
            np.testing.assert_allclose(got["probabilities"], softmax64(2 * x), rtol=1e-6)
            offline = await asyncio.to_thread(one.run, {"x": x})
            np.testing.assert_allclose(offline["probabilities"], softmax64(2 * x), rtol=1e-6)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "convert",
    [softmax, logistic, complement],
)
def test_a_row_that_is_no_number_stays_none_and_warns_of_nothing(
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    got = convert(np.array([[np.nan], [1]], F4))
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()


def test_an_infinite_logit_is_no_answer_and_a_class_that_is_ruled_out_has_none() -> None:
    assert np.isnan(softmax(np.array([[np.inf, 0]], F4))).any()
    assert softmax(np.array([[-np.inf, 0]], F4)).tolist() == [[0, 1]]


@given(arrays(F4, (5, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_every_softmax_is_a_distribution_in_every_width(z: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):  # as float16 the largest are infinite
        widths: list[NDArray[Any]] = [z, z.astype(F8), np.clip(z, -6e4, 6e4).astype(F2)]
    for wide in widths:
        assert not not_distributions(softmax(wide)).any()
        assert not not_distributions(logistic(wide[:, 0])).any()


@pytest.mark.parametrize("scale", [0.01, 1, 3, 10])
def test_a_thousand_classes_in_float16_are_a_distribution(scale: float) -> None:
    z = np.random.default_rng(0).normal(scale=scale, size=(200, 1000)).astype(F2)
    assert not not_distributions(softmax(z)).any()
    odds = np.exp(z - z.max(1, keepdims=True))  # and so are those of a model that computes in float16
    assert odds.dtype == F2
    assert not not_distributions(odds / odds.sum(1, keepdims=True)).any()


def test_rows_that_are_no_distributions_are_found_one_by_one() -> None:
    p = np.array(
        [
            [0.2, 0.8],
            [1.0005, -0.0005],
            [0.504, 0.504],
            [-0.002, 1.002],
            [0.4, 0.5],
            [2.0, 3.0],
            [0.0, 0.0],
            [np.nan, 1.0],
            [np.inf, 0.0],
            [-1.5, 2.5],
        ]
    )
    wanted = [False] * 3 + [True] * 7
    for dtype in (F4, F8, F2):
        assert not_distributions(p.astype(dtype)).tolist() == wanted
    assert not_distributions(p[:0]).tolist() == []
