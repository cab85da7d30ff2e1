"""What a model looks like to everything that wraps one: named tensors in, named tensors out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the row."""


class NotAModelFault(Exception):
    """Says nothing of the model: whoever judges the model by its failures leaves it out."""


class UnfitInput(NotAModelFault, ValueError):
    """The input's fault."""


class CallerDeadlineExceeded(NotAModelFault, TimeoutError):
    """Whoever asked gave less time than the model may take, and the model took more."""


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """One input or output as the model declares it. The first axis is the batch; None is any size.

    `dtype` object is text, as bytes; `bf16` marks a float32 that the model has as bfloat16.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    bf16: bool = False


class Predictor(Protocol):
    """Answers, or raises anything it likes. Whoever asks bounds it in time, by cancelling it."""

    async def predict(self, inputs: Tensors, /) -> Tensors: ...


class LoadedModel(Predictor, Protocol):
    """A model that can be certified and served, wherever it runs."""

    @property
    def digest(self) -> str:
        """sha256 (hex) of what makes it this model and no other: what a certificate is bound to."""

    @property
    def inputs(self) -> tuple[ModelTensor, ...]:
        """In declared order."""

    @property
    def outputs(self) -> tuple[ModelTensor, ...]:
        """In declared order."""

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        """All outputs for a whole data set, at most `chunk` rows at a time; blocks. For calibration."""

    def canary(self, n: int) -> Tensors:
        """n rows of zeros in the declared shapes."""

    def example(self) -> tuple[Tensors, Tensors]:
        """A few rows and the answer to them. Asks nobody over a network."""

    def close(self) -> None:
        """Ends what the model holds. Idempotent."""

    async def closed(self) -> None:
        """Waits until what `close` began has ended."""


def zeros(inputs: Iterable[ModelTensor], n: int) -> dict[str, NDArray[Any]]:
    """n rows of zeros and empty texts in the declared shapes, unknown sizes taken as 1."""
    rows = {}
    for spec in inputs:
        shape = (n, *(1 if dim is None else dim for dim in spec.shape[1:]))
        rows[spec.name] = np.full(shape, b"" if spec.dtype.kind == "O" else 0, spec.dtype)
    return rows
