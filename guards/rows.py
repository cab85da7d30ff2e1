"""The inputs of guards: rows as columns, and one model's answer to them.

Structural types only: the gateway's `Batch` satisfies them, and neither package imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

F8: TypeAlias = NDArray[np.float64]
Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class GuardBatch(Protocol):
    """A batch of n rows that a guard scores. inputs: arrays with first axis n; principals: one per row."""

    @property
    def inputs(self) -> Tensors: ...
    @property
    def principals(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...

    async def forward(self, model: str, /) -> Tensors:
        """The named model's outputs for these rows, computed once per batch. Raises if the model failed."""
        ...

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        """The named model's outputs for other inputs, within that model's own time budget.

        Raises if the model failed or exceeded its budget.
        """
        ...


class AnsweredBatch(Protocol):
    """n rows with one model's outputs for them: arrays with first axis n."""

    @property
    def outputs(self) -> Tensors: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Signals:
    """The inputs of a detector. A field is None where the model has no such input, or gave no such output.

    x: float32[n, c, h, w], the first picture input; t: float32[n, f], the table made of all other inputs
    (`table.py`), NaN where a value is missing; h: float32[n, d], features, the input of the model's last
    layer; z: float32[n, k], logits, as the model returns them.
    """

    x: NDArray[np.float32] | None
    t: NDArray[np.float32] | None = None
    h: NDArray[np.float32] | None = None
    z: NDArray[np.float32] | None = None
