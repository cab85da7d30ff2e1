"""The protocols of a model, and the errors that are not the model's fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the row."""


class NotAModelFault(Exception):
    """A failed call that the model did not cause; a circuit breaker does not count it."""


class UnfitInput(NotAModelFault, ValueError):
    """The model cannot take this input. The text names no value of it."""


class ModelRaised(NotAModelFault, ValueError):
    """The model raised on these rows: it is broken, or one is no input for it. `Breaker.prove` decides.

    Types and texts of runtimes and servers do not tell the two apart: onnxruntime reports an unknown category
    and an exhausted memory alike, and one server says 500 where another says 400. The text names no value of
    the rows, and no text of a server that had them.
    """


class ModelBusy(NotAModelFault, RuntimeError):
    """The model was not called: an abandoned call still occupies it."""


class CallerDeadlineExceeded(NotAModelFault, TimeoutError):
    """The model missed a caller's deadline that was sooner than its own budget."""


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
    """A model, or a wrapper around one that is a predictor too, such as a circuit breaker.

    A predictor does not know why it is called or how long it may take: its caller cancels it in time.
    A cancelled call must stop using the machine as soon as it can.
    """

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """Every output for these rows, by name. May raise any exception."""
        ...


class LoadedModel(Predictor, Protocol):
    """A model that can be certified and served, wherever it runs."""

    @property
    def digest(self) -> str:
        """sha256 (hex) of all that determines the model's answers; part of the certificate."""

    @property
    def inputs(self) -> tuple[ModelTensor, ...]:
        """In declared order."""

    @property
    def outputs(self) -> tuple[ModelTensor, ...]:
        """In declared order."""

    @property
    def classes(self) -> tuple[int | str, ...] | None:
        """The classes in the order of the probabilities, where the model itself names them."""

    @property
    def lost(self) -> bool:
        """Whether it cannot answer again in this process, which then has to be replaced."""

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        """All outputs for a whole data set, at most `chunk` rows at a time; blocks. For calibration."""

    def close(self) -> None:
        """Releases the model's threads and connections. Idempotent."""

    async def closed(self) -> None:
        """Waits until everything that `close` releases is released."""


def zeros(inputs: Iterable[ModelTensor], n: int) -> dict[str, NDArray[Any]]:
    """n rows of zeros and empty texts in the declared shapes, unknown sizes taken as 1."""
    rows = {}
    for spec in inputs:
        shape = (n, *(1 if dim is None else dim for dim in spec.shape[1:]))
        rows[spec.name] = np.full(shape, b"" if spec.dtype.kind == "O" else 0, spec.dtype)
    return rows
