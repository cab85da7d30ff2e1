"""What a model returns is an answer only if it has the certified types and can be one, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.core.decision import Tensors
from gateway.core.model import Forward, Model
from gateway.core.rows import Mask
from tests.support.core_parts import run


class Echo:
    """A model that returns its inputs as y; and raises for more than one row where it is `alone`."""

    def __init__(self, dtype: Any = np.float64, alone: bool = False) -> None:
        self.dtype, self.alone = dtype, alone

    async def predict(self, inputs: Tensors, /) -> Tensors:
        if self.alone and len(inputs["x"]) > 1:
            raise RuntimeError("one at a time")
        return {"y": inputs["x"].astype(self.dtype)}


def below_two(outputs: Tensors) -> Mask:
    return np.asarray(outputs["y"] < 2)


def forward(echo: Echo, **more: Any) -> Forward:
    model = Model("m", echo, 1.0, {"y": ()}, **more)
    return run(lambda: model.forward({"x": np.array([0.0, 3.0, 1.0, np.nan])}, 4, 1e6))


@pytest.mark.parametrize("alone", [False, True])
def test_a_row_that_cannot_be_an_answer_fails_alone(alone: bool) -> None:
    assert forward(Echo(alone=alone)).ok.tolist() == [True, True, True, False], "not finite"
    found = forward(Echo(alone=alone), possible=below_two)
    assert found.ok.tolist() == [True, False, True, False]
    assert not found.all_ok
    assert found.error is not None and found.invalid is None


def test_outputs_of_another_type_than_the_certified_one_are_no_answer() -> None:
    certified = {"y": np.dtype(np.float64)}
    assert forward(Echo(), dtypes=certified).ok.any()
    found = forward(Echo(np.float32), dtypes=certified)
    assert not found.ok.any()
    assert found.error == "m: output 'y' is float32, not float64"
