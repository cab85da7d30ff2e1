"""What a guard may read: rows as columns, and one model's answer for them.

Structural types only. The gateway's `Batch` fits them without either package importing the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

F8: TypeAlias = NDArray[np.float64]
Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class Rows(Protocol):
    """n rows that ask for an answer."""

    @property
    def inputs(self) -> Tensors: ...
    @property
    def principals(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...

    async def forward(self, model: str, /) -> Tensors:
        """The named model's outputs for these rows: computed once, then remembered. Raises if it failed."""
        ...

    async def predict(self, model: str, inputs: Tensors, /) -> Tensors:
        """The named model's outputs for other inputs, bounded by that model's own time budget.

        Raises if it failed.
        """
        ...


class AnsweredRows(Protocol):
    """n rows together with the outputs that one model gave for them."""

    @property
    def outputs(self) -> Tensors: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Signals:
    """What detectors read. x: float32[n, ...] the model's input; h: float32[n, d] penultimate features;
    z: float32[n, k] temperature-scaled logits. h and z are None where the model's answer is missing."""

    x: NDArray[np.float32]
    h: NDArray[np.float32] | None = None
    z: NDArray[np.float32] | None = None
