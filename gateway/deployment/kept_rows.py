"""Real rows that calibration keeps, in `guards.npz`: up to 64 of the fold `fit`, with the primary's answers.

Models are tried with them at load, guards' graphs are recorded on them, the health check decides one of them,
and the demo and the load test send them. A row of zeros would do for few models: one with a category that it
must know, or with an index, refuses it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.payload import decode, encode
from gateway.core.decision import Tensors
from gateway.core.rows import row_indices
from gateway.deployment.measures import READ_OUTPUTS
from gateway.policy.kinds.rows import CalibrationRows
from guards.arrays import Arrays

MOST_ROWS, MOST_BYTES = 64, 4 * 2**20
_X, _ANSWER = "kept.x", "kept.answer"


@dataclass(frozen=True, slots=True, eq=False)
class KeptRows:
    """x: the inputs by name, n >= 1 rows; answer: those outputs of the primary that guards read."""

    x: Tensors
    answer: Tensors

    def __post_init__(self) -> None:
        sizes = {len(array) for array in self.x.values()}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError("the rows kept by calibration are not the same number of each input")

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    @classmethod
    def of(cls, rows: CalibrationRows) -> Self:
        """Those of the rows that are kept: at most 64, fewer of large rows, but two where there are."""
        row_bytes = sum(_bytes(array[:1]) for array in rows.x.values())
        n = min(len(rows), MOST_ROWS, max(2, MOST_BYTES // max(1, row_bytes)))
        few = rows.take(row_indices(n))
        answer = few.answers[few.primary]
        return cls(few.x, {name: array for name, array in answer.items() if name in READ_OUTPUTS})

    @classmethod
    def unpack(cls, packed: Mapping[str, NDArray[np.uint8]]) -> Self:
        """Reads what `pack` returned. Raises ValueError for anything else."""
        if _X not in packed or _ANSWER not in packed:
            raise ValueError("holds no rows to try the models with; calibrate again")
        return cls(*(decode(packed[name].astype(np.uint8).tobytes()) for name in (_X, _ANSWER)))

    def pack(self) -> Arrays:
        """The rows as arrays of bytes, text included."""
        return {
            name: np.frombuffer(encode(tensors), np.uint8)
            for name, tensors in ((_X, self.x), (_ANSWER, self.answer))
        }

    def first(self, n: int) -> Tensors:
        """n of the rows; the first again and again where there are fewer."""
        at = np.arange(n) % len(self)
        return {name: array[at] for name, array in self.x.items()}

    def sizes(self, inputs: Collection[str]) -> dict[str, tuple[int, ...]]:
        """The sizes of one row of each of these inputs."""
        return {name: array.shape[1:] for name, array in self.x.items() if name in inputs}


def _bytes(array: NDArray[np.generic]) -> int:
    return array.nbytes if array.dtype.kind != "O" else sum(map(len, array.reshape(-1).tolist()))
