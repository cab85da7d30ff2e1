"""A regressor with the intervals of its check: what it declares, answers, and leaves to the model itself."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor
from gateway.deployment.interval_model import (
    IntervalModel,
    declared_outputs,
    interval_check,
    with_intervals,
    without_value,
)
from gateway.policy.kinds.interval import FittedInterval
from gateway.policy.schema import Policy
from guards.difficulty import Constant
from guards.interval import Interval
from guards.row_view import RowView
from tests.support.regressors import drawn, interval, policy_of, regressor

Array = NDArray[Any]
X = {"x": drawn(np.random.default_rng(0), 40)[0]}
FITTED = FittedInterval("rung0", Interval(Constant(2.0), quantiles=False, q=1.5, miscoverage=0.1))
VIEW = RowView.fit(X, frozenset())
PAIR = [interval(), None]


def policy(checks: list[dict[str, Any] | None], **more: Any) -> Policy:
    return Policy.model_validate(policy_of(checks, **more))


def loaded(content: bytes) -> OnnxModel:
    return OnnxModel("m", content, threads=1)


def wrapped(model: OnnxModel) -> IntervalModel:
    found = with_intervals(policy(PAIR), {"rung0": model, "rung1": model}, VIEW, {"rung0": FITTED})
    assert found["rung1"] is model, "a rung without intervals is the model itself"
    assert isinstance(found["rung0"], IntervalModel)
    return found["rung0"]


def test_the_check_of_a_rung_is_found_by_its_kind() -> None:
    first, second = policy(PAIR).rungs
    found = interval_check(first)
    assert found is not None
    assert found.selective_error == 0.1
    assert interval_check(second) is None


def test_bounds_are_declared_after_the_models_own_outputs_in_the_form_of_the_value() -> None:
    model = loaded(regressor(dtype=np.float64))
    first, second = policy(PAIR).rungs
    F8 = np.dtype(np.float64)
    assert declared_outputs(first, model) == (
        ModelTensor("value", F8, (None, 1)),
        ModelTensor("lower", F8, (None, 1)),
        ModelTensor("upper", F8, (None, 1)),
    )
    assert declared_outputs(second, model) == model.outputs
    model.close()


def test_bounds_that_the_model_declares_are_declared_once() -> None:
    model = loaded(regressor(quantiles=True))
    names = [spec.name for spec in declared_outputs(policy(PAIR).rungs[0], model)]
    model.close()
    assert names == ["value", "lower", "upper"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("column", [True, False])
def test_answers_have_bounds_that_are_rounded_outwards(dtype: Any, column: bool) -> None:
    model = loaded(regressor(dtype=dtype, column=column))
    bounded = wrapped(model)
    answer, bare = bounded.run(X), model.run(X)
    assert list(answer) == ["value", "lower", "upper"]
    assert np.array_equal(answer["value"], bare["value"])
    for name in ("lower", "upper"):
        assert (answer[name].dtype, answer[name].shape) == (bare["value"].dtype, bare["value"].shape)
    value = bare["value"].astype(np.float64)
    assert (answer["lower"].astype(np.float64) <= value - 3).all()
    assert (answer["upper"].astype(np.float64) >= value + 3).all()
    step = np.spacing(np.abs(value).max().astype(dtype)).astype(np.float64)
    assert np.allclose(answer["upper"].astype(np.float64) - value, 3, atol=2 * step)
    model.close()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_end_at_the_largest_number_of_the_datatype(dtype: Any) -> None:
    """An infinite width is no suspicion, and a double beyond a float16 is no rare value."""
    most = np.finfo(dtype).max
    value = np.array([[most], [-most], [0]], dtype)
    wide = FittedInterval(
        "rung0", Interval(Constant(1.0), quantiles=False, q=float(most) / 4, miscoverage=0.1)
    )
    answer = wide.with_bounds(None, {"value": value})
    assert np.isfinite(answer["lower"]).all() and np.isfinite(answer["upper"]).all()
    assert (answer["upper"][0], answer["lower"][1]) == (most, -most)
    assert (answer["lower"] <= value).all() and (value <= answer["upper"]).all()


def test_rows_are_answered_alike_asked_and_run() -> None:
    model = loaded(regressor())
    bounded = wrapped(model)
    asked = asyncio.run(_asked(bounded))
    run = bounded.run(X, chunk=7)
    for name in ("value", "lower", "upper"):
        assert np.array_equal(asked[name], run[name])
    model.close()


async def _asked(model: IntervalModel) -> Any:
    return await model.predict(X)


def test_everything_else_is_the_models_own() -> None:
    model = loaded(regressor())
    bounded = wrapped(model)
    assert (bounded.digest, bounded.inputs, bounded.classes) == (model.digest, model.inputs, None)
    assert [spec.name for spec in bounded.outputs] == ["value", "lower", "upper"]
    bounded.close()
    asyncio.run(bounded.closed())
    with pytest.raises(RuntimeError):
        asyncio.run(_asked(bounded))


def test_a_mean_error_needs_a_value_of_every_rung() -> None:
    asked = policy([None, None], absolute_error={"mean": 1.0, "clip": 9.0})
    one, other = loaded(regressor()), loaded(regressor())
    renamed = OnnxModel("m", regressor(), threads=1, names={"y": "value"})
    assert list(without_value(asked, {"rung0": one, "rung1": other})) == []
    assert list(without_value(asked, {"rung0": one, "rung1": renamed})) == [
        (
            ("rungs", 1, "model"),
            "absolute_error reads 'value', one float a row, and the model has y; map its name (names)",
        )
    ]
    assert list(without_value(policy([None, None]), {"rung0": renamed, "rung1": renamed})) == []
    for model in (one, other, renamed):
        model.close()
