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

Rows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Samples:
    """clean: float32[n, ...] with labels y: int64[n]; families of outliers by name."""

    clean: Rows
    y: NDArray[np.int64]
    families: dict[str, Rows]


def load_samples(folder: Path, input_name: str) -> Samples:
    """The samples of a deployment. Raises ValueError or OSError if a file is missing or broken."""
    arrays_by_name = arrays.load(folder / "samples.npz")
    path = folder / "outliers.npz"
    outlier_arrays = arrays.load(path) if path.exists() else {}
    families = {name: _as_float32(a) for name, a in outlier_arrays.items() if a.ndim > 1}
    return Samples(_as_float32(arrays_by_name[input_name]), arrays_by_name["y"].astype(np.int64), families)


def _as_float32(rows: NDArray[Any]) -> Rows:
    scaled = rows / np.float32(255) if rows.dtype == np.uint8 else rows
    return scaled.astype(np.float32)
