"""The real inputs that a deployment brings along, for the demo and the load test.

`samples.npz` holds clean test rows under the model's input name and their labels `y`; `outliers.npz` holds
families of rows that should not be answered, by name. Pictures are kept as bytes, 255 for 1.0.
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
    held = arrays.load(folder / "samples.npz")
    path = folder / "outliers.npz"
    others = arrays.load(path) if path.exists() else {}
    families = {name: _real(a) for name, a in others.items() if a.ndim > 1}
    return Samples(_real(held[input_name]), held["y"].astype(np.int64), families)


def _real(rows: NDArray[Any]) -> Rows:
    scaled = rows / np.float32(255) if rows.dtype == np.uint8 else rows
    return scaled.astype(np.float32)
