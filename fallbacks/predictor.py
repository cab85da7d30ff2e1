"""What a model looks like to everything that wraps one: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the row."""


class UnfitInput(ValueError):
    """The input's fault, and none of the model's: whoever judges the model by its failures leaves it out."""


class Predictor(Protocol):
    """Answers, or raises anything it likes. Whoever asks bounds it in time, by cancelling it."""

    async def predict(self, inputs: Tensors, /) -> Tensors: ...
