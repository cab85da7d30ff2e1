"""What an export leaves: a model, labelled rows to calibrate on, rows to ask, rows that are absurd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

Columns = dict[str, np.ndarray]
"""Inputs of a model under their names, [n, ...] each; and `y`: [n]."""


@dataclass(frozen=True)
class Exported:
    """A model of a third party and rows for it."""

    model: bytes
    rows: Columns
    """Rows that it was not trained on: inputs, `y`, and `expected` if the original can be asked."""
    asked: Columns
    """More of them, that calibration does not see."""
    absurd: dict[str, Columns]
    """One row each that no model should answer, under what is wrong with it: inputs alone."""
    table: bool = False
    """Whether `rows` are written as `rows.csv`, a column an input, instead of `rows.npz`."""


def save(exported: Exported, folder: Path) -> None:
    """`model.onnx`, `rows.npz` or `rows.csv`, `asked.npz`, and `absurd.npz` with an array `what`."""
    (folder / "model.onnx").write_bytes(exported.model)
    if exported.table:
        import pandas as pd

        rows = {name: column.reshape(-1) for name, column in exported.rows.items() if name != "expected"}
        pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    else:
        np.savez_compressed(folder / "rows.npz", **exported.rows)
    np.savez_compressed(folder / "asked.npz", **exported.asked)
    names = list(next(iter(exported.absurd.values())))
    absurd = {name: np.concatenate([row[name] for row in exported.absurd.values()]) for name in names}
    np.savez_compressed(folder / "absurd.npz", what=np.array(list(exported.absurd)), **absurd)


def split(columns: Columns, first: int) -> tuple[Columns, Columns]:
    """The first rows, and the rest."""
    return {k: v[:first] for k, v in columns.items()}, {k: v[first:] for k, v in columns.items()}


def outliers(inputs: Columns, at: int = 0) -> dict[str, Columns]:
    """One row with one column far off, for every column: 10 robust sigmas from the median, or an unseen word.

    Args: inputs: [n, 1] each, or [n, d] whose d columns are taken in turn; at: the row that is spoilt.
    """
    spoilt = {}
    for name, values in inputs.items():
        for j in range(values.shape[1]):
            row = {key: column[at : at + 1].copy() for key, column in inputs.items()}
            row[name][0, j] = _far_off(values[:, j])
            spoilt[name if values.shape[1] == 1 else f"{name}[{j}]"] = row
    return spoilt


def _far_off(column: np.ndarray) -> object:
    if column.dtype.kind in "OU":
        return "platinum"
    present = column[~np.isnan(column)] if column.dtype.kind == "f" else column
    median = np.median(present)
    sigma = 1.4826 * np.median(np.abs(present - median)) or present.std() or 1.0
    return median + 10 * sigma
