"""Rows that wait until several are there: a step over many rows costs each a fifth of one over itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors


class Rows(NamedTuple):
    """n rows. contents: uint64[n], a hash of all of each; principals: n names."""

    inputs: Tensors
    contents: NDArray[np.uint64]
    principals: tuple[str, ...]

    def take(self, rows: list[int]) -> Rows:
        """The given rows, in the given order."""
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        return Rows(inputs, self.contents[rows], tuple(self.principals[row] for row in rows))


@dataclass(slots=True, eq=False)
class DeferredRows:
    """Rows of some batches, in order. inputs: the names of those that are read."""

    inputs: tuple[str, ...]
    _parts: list[Rows] = field(default_factory=list, init=False)
    _rows: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: Rows) -> None:
        """Adds rows behind those that wait."""
        self._parts.append(rows)
        self._rows += len(rows.contents)

    def take_all(self) -> Rows:
        """All rows, one or more, as those of one batch; none are left."""
        parts, self._parts, self._rows = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        inputs = {name: np.concatenate([one.inputs[name] for one in parts]) for name in self.inputs}
        principals = tuple(name for one in parts for name in one.principals)
        return Rows(inputs, np.concatenate([one.contents for one in parts]), principals)
