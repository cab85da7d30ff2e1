"""The sample inputs in a deployment folder, for the demo and the load test.

`samples.npz` holds clean test rows under the model's input name and their labels `y`; `outliers.npz` holds
families of outlier rows, by name. Pictures are stored as bytes, 255 for 1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards import arrays

SAMPLES_FILE, OUTLIERS_FILE = "samples.npz", "outliers.npz"
Rows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Samples:
    """clean: float32[n, ...] with labels y: int64[n]; families of outliers by name."""

    clean: Rows
    y: NDArray[np.int64]
    families: dict[str, Rows]


def load_samples(folder: Path, input_name: str) -> Samples:
    """The samples of a deployment. Raises ValueError that names the file and says what to save in it."""
    path = folder / SAMPLES_FILE
    held = _load(path, input_name)
    rows = held.get(input_name, held.get("x"))
    if rows is None or "y" not in held:
        missing = "y" if rows is not None else repr(input_name)
        raise ValueError(f"{path}: holds {', '.join(held)}, and no {missing}; {_mend(input_name)}")
    for name, array in ((input_name, rows), ("y", held["y"])):
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{path}: {name} is {array.dtype}, and samples are numbers")
    outliers = folder / OUTLIERS_FILE
    families = _load(outliers, input_name) if outliers.exists() else {}
    return Samples(
        _as_float32(rows),
        held["y"].astype(np.int64),
        {name: _as_float32(family) for name, family in families.items() if family.ndim > 1},
    )


def _load(path: Path, input_name: str) -> arrays.Arrays:
    try:
        return arrays.load(path, _mend(input_name))
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise ValueError(f"{path}: {what}; {_mend(input_name)}") from error


def _mend(input_name: str) -> str:
    return f"save held-out rows there with np.savez({SAMPLES_FILE!r}, **{{{input_name!r}: rows}}, y=labels)"


def _as_float32(rows: NDArray[Any]) -> Rows:
    scaled = rows / np.float32(255) if rows.dtype == np.uint8 else rows
    return scaled.astype(np.float32)
