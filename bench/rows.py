"""The rows that quality is measured on: good ones, outliers, and the folds that no guard was fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench import families
from gateway.calibration.folds import SEED, fold_indices
from gateway.calibration.samples import count_samples
from gateway.cli.samples import Rows
from gateway.deployment.certificate import Certificate, sha256
from gateway.policy.schema import Policy
from guards import arrays

MADE_ROWS = 500
UNFITTED = ("cut", "risk")


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows of the model's input and their classes."""

    x: Rows
    y: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path, source: str) -> Self:
        """From an .npz. Raises ValueError or OSError."""
        content = arrays.load(path)
        for name in (source, "y"):
            if name not in content:
                raise ValueError(f"{path}: holds {', '.join(sorted(content))}, and no {name!r}")
        return cls(_real(content[source]), content["y"].astype(np.int64))


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of one kind. origin: `file`, `made`, or `harmless`; y: their true classes, if there are any."""

    origin: str
    name: str
    x: Rows
    y: NDArray[np.int64] | None = None


def row_groups(folder: Path, policy: Policy, source: str, good: LabelledRows) -> Iterator[RowGroup]:
    """The outliers that the folder brings, those made from good rows, and harmless changes of these."""
    path = folder / "outliers.npz"
    content = arrays.load(path) if path.exists() else {}
    for name, array in content.items():
        if array.ndim == good.x.ndim:
            yield RowGroup("file", name, _real(array), content.get(f"{name}_y"))
    x, y = good.x[:MADE_ROWS], good.y[:MADE_ROWS]
    bounds = input_bounds(policy, source, good.x)
    for name, rows in families.outliers(x, y, bounds, SEED).items():
        yield RowGroup("made", name, rows)
    for name, rows in families.harmless(x, bounds, SEED).items():
        yield RowGroup("harmless", name, rows, y)


def input_bounds(policy: Policy, source: str, x: Rows) -> tuple[float, float]:
    """The range of an input: as the policy says, else as these rows have it."""
    limits = policy.inputs.get(source)
    if limits is None or limits.low is None or limits.high is None:
        return float(x.min()), float(x.max())
    return limits.low, limits.high


def unfitted(path: Path, source: str, certificate: Certificate) -> LabelledRows:
    """The folds of the calibration data that no guard was fitted on.

    Raises:  ValueError if it is not the very file that the certificate was made from; OSError.
    """
    if sha256(path) != certificate.digests.data:
        raise ValueError(f"{path}: is not the data that this deployment was calibrated with")
    content, stored = LabelledRows.load(path, source), arrays.load(path)
    name = source if source in stored else "x"
    folds = fold_indices(count_samples({source: stored[name]}, content.y, stored.get("group")))
    rows = np.concatenate([folds[name] for name in UNFITTED])
    return LabelledRows(content.x[rows], content.y[rows])


def _real(rows: NDArray[Any]) -> Rows:
    """Rows as float32; uint8 rows are pictures, scaled so that 255 is 1.0."""
    scaled = rows / np.float32(255) if rows.dtype == np.uint8 else rows
    return scaled.astype(np.float32)
