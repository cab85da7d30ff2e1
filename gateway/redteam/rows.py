"""The rows that an attack needs, from files that the operator names, shared out so that none has two uses.

| part of the samples | rows | for |
|---|---|---|
| honest | a fifth | sent by the honest caller, before and during the attacks |
| held | three tenths | never sent: the fidelity of a stolen model is measured on them |
| attacked | the rest | where attacks begin, and what a thief has of the model's own data |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.data_files import load_columns
from gateway.core.errors import ArtifactError, Problem
from gateway.core.rows import F8
from gateway.redteam.space import Column, Space, picture_of

LEAST_ROWS = 20
HONEST, HELD = 0.2, 0.3
X, Y = "x", "y"
SAMPLES_MEND = "give the model's held-out rows: an .npz, CSV or Parquet file with its inputs by name, and y"


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """x: float64[n, d], scaled; y: intp[n], the classes, None where the file has none that are numbers."""

    x: F8
    y: NDArray[np.intp] | None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.intp]) -> Labelled:
        return Labelled(self.x[rows], None if self.y is None else self.y[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The samples, shared out at random."""

    honest: Labelled
    held: Labelled
    attacked: Labelled


def read_samples(path: Path, inputs: tuple[Column, ...], option: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """The inputs of a file's rows, and its classes or None. `x` will do for the only input.

    Bytes for an input of floats are pictures, 255 for 1.0, as everywhere in the command line.
    Raises:  ArtifactError naming the option, the file, what is wrong and what to give.
    """
    try:
        held = load_columns(path)
    except OSError as error:
        raise _wrong(option, path, f"cannot be read: {error.strerror or error}; {SAMPLES_MEND}") from error
    except ValueError as error:
        raise _wrong(option, path, str(error).removeprefix(f"{path}: ")) from error
    found: dict[str, NDArray[Any]] = {}
    for one in inputs:
        array = held.get(one.name, held.get(X) if len(inputs) == 1 else None)
        if array is None:
            what = f"has no array {one.name!r}, but {', '.join(sorted(held)) or 'nothing'}; {SAMPLES_MEND}"
            raise _wrong(option, path, what)
        found[one.name] = _fitting(one, array, option, path)
    if len({len(one) for one in found.values()}) > 1:
        raise _wrong(option, path, "has inputs of different numbers of rows")
    rows = len(next(iter(found.values())))
    y = held.get(Y)
    return found, y if y is not None and y.shape == (rows,) and y.dtype.kind in "iu" else None


def labelled(space: Space, rows: dict[str, NDArray[Any]], y: Any) -> Labelled:
    """Rows of a file in a space."""
    return Labelled(space.clip(space.scaled(rows)), None if y is None else np.asarray(y, np.intp))


def shared_out(rows: Labelled, seed: int, path: Path) -> Parts:
    """The parts, in random order. Raises ArtifactError for too few rows."""
    if len(rows) < LEAST_ROWS:
        raise _wrong("--samples", path, f"has {len(rows)} rows; {LEAST_ROWS} are the least")
    order = np.random.default_rng(seed).permutation(len(rows))
    honest, held = round(HONEST * len(rows)), round((HONEST + HELD) * len(rows))
    return Parts(rows.take(order[:honest]), rows.take(order[honest:held]), rows.take(order[held:]))


def _fitting(column: Column, array: NDArray[Any], option: str, path: Path) -> NDArray[Any]:
    if array.dtype.kind not in "fiub":
        raise _wrong(option, path, f"{column.name} holds no numbers")
    if array.ndim < 1 or array[0:1].size != column.size:
        shape = list(array.shape[1:])
        raise _wrong(
            option, path, f"{column.name} has rows of shape {shape}; the model takes {list(column.shape)}"
        )
    scaled = array / np.float32(255) if array.dtype == np.uint8 and picture_of((column,))[0] else array
    return np.asarray(scaled, column.dtype).reshape(len(array), *column.shape)


def _wrong(option: str, path: Path, what: str) -> ArtifactError:
    return ArtifactError([Problem(option, what, str(path))])
