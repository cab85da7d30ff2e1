"""Runs of a model whose file fixes its batch, or whose rows change each other's answers.

A fixed batch is run so many rows at a time, the last of them padded. Rows that change each other's answers
are run one at a time, each in a batch of its own copies where the file fixes the size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import ModelRaised

Array: TypeAlias = NDArray[Any]
Feed: TypeAlias = Mapping[str, Array]


def row_count(file: str, feed: Feed) -> int:
    """How many rows every input has. Raises ModelRaised unless all have the same number."""
    sizes = {len(array) for array in feed.values()}
    if len(sizes) != 1:
        raise ModelRaised(f"{file}: inputs of {sorted(sizes)} rows")
    return sizes.pop()


def run_fixed(
    file: str,
    run: Callable[[Feed], Sequence[Array]],
    feed: Feed,
    rows: int,
    outputs: Sequence[str],
    unbatched: Collection[str],
    *,
    apart: bool = False,
) -> list[Array]:
    """The outputs for any number of rows, at least one, from runs of exactly `rows`.

    Args:    outputs: the names of what a run returns. unbatched: those that get a first axis.
             apart: whether each row has a run of its own.
    Raises:  ModelRaised, a ValueError, for inputs of different lengths or no row, for an output whose first
             axis is not `rows`, or whose other sizes differ between runs; what `run` raises.
    Cost:    ceil(n / rows) runs, and a copy of the outputs where that is more than one.
    """
    n = row_count(file, feed)
    if not n:
        raise ModelRaised(f"{file}: no rows")
    parts = []
    step = 1 if apart else rows
    for at in range(0, n, step):
        found = run({name: _rows(array[at : at + step], rows) for name, array in feed.items()})
        parts.append(
            [
                _batched(file, name, array, rows, name in unbatched)[:step]
                for name, array in zip(outputs, found, strict=True)
            ]
        )
    return [
        _joined(file, name, column)[:n]
        for name, column in zip(outputs, zip(*parts, strict=True), strict=True)
    ]


def _rows(part: Array, rows: int) -> Array:
    """`rows` rows: those of the part, and its last one again."""
    return (
        part if len(part) == rows else np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
    )


def _batched(file: str, name: str, array: Array, rows: int, unbatched: bool) -> Array:
    array = array[np.newaxis] if unbatched else array
    if array.shape[:1] != (rows,):
        raise ModelRaised(f"{file}: output {name!r} has the shape {list(array.shape)} for a batch of {rows}")
    return array


def _joined(file: str, name: str, parts: Sequence[Array]) -> Array:
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        raise ModelRaised(f"{file}: output {name!r} has another size for each row; ask for one row at a time")
    return np.concatenate(parts)
