"""Arrays whose first axis is the row, and operations on their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors

F8: TypeAlias = NDArray[np.float64]
RowIndices: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]


class Row(Mapping[str, NDArray[Any]]):
    """One row of named arrays, sliced only when an array is read: arrays with a first axis of one."""

    __slots__ = ("_at", "_tensors")

    def __init__(self, tensors: Tensors, at: int) -> None:
        self._tensors = tensors
        self._at = at

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._tensors[name][self._at : self._at + 1]

    @property
    def source(self) -> tuple[Tensors, int]:
        """The arrays that this is a row of, and which."""
        return self._tensors, self._at

    def get(self, name: str, default: Any = None) -> Any:
        """As that of `Mapping`, at a third of the cost."""
        return self[name] if name in self._tensors else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@lru_cache(maxsize=256)
def row_indices(n: int) -> RowIndices:
    """0 to n - 1, read-only and cached."""
    rows = np.arange(n)
    rows.flags.writeable = False
    return rows


@lru_cache(maxsize=256)
def all_true(n: int) -> Mask:
    """n times true, read-only and cached."""
    mask = np.ones(n, bool)
    mask.flags.writeable = False
    return mask


def content_of(array: NDArray[Any]) -> bytes:
    """The same bytes for equal arrays of one type and shape, texts included."""
    return repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()


def finite(outputs: Tensors, n: int) -> Mask:
    """bool[n]: rows in which every floating output is finite. NaN is an error, never a number."""
    ok = all_true(n)
    for array in outputs.values():
        if array.dtype.kind == "f" and not np.logical_and.reduce(np.isfinite(array), axis=None):
            ok = ok & np.isfinite(array.reshape(n, -1)).all(axis=1)
    return ok


def stack(answers: Sequence[Tensors | None]) -> tuple[Tensors, Mask]:
    """Single-row answers as one; zeros for rows that are missing or have another form than the first."""
    template = next((a for a in answers if a is not None), None)
    if template is None:
        return {}, np.zeros(len(answers), bool)
    form = {name: (a.dtype, a.shape) for name, a in template.items()}
    ok = np.array([a is not None and {k: (v.dtype, v.shape) for k, v in a.items()} == form for a in answers])
    blank = {name: np.zeros_like(a) for name, a in template.items()}
    rows = [a if a is not None and good else blank for a, good in zip(answers, ok, strict=True)]
    outputs = {name: np.concatenate([row[name] for row in rows]) for name in form}
    return outputs, ok & finite(outputs, len(answers))
