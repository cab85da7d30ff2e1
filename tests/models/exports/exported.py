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
    """Rows that no model should answer, under what is wrong with them: inputs alone."""
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
    what = np.repeat(list(exported.absurd), [len(row[names[0]]) for row in exported.absurd.values()])
    np.savez_compressed(folder / "absurd.npz", what=what, **absurd)


def split(columns: Columns, first: int) -> tuple[Columns, Columns]:
    """The first rows, and the rest."""
    return {k: v[:first] for k, v in columns.items()}, {k: v[first:] for k, v in columns.items()}


def outliers(inputs: Columns, rows: int = 20) -> dict[str, Columns]:
    """Complete rows in which one column is far off, for every column: 10 robust sigmas, or an unseen word.

    Args: inputs: [n, 1] each, or [n, d] whose d columns are taken in turn.
    """
    missing = [np.isnan(column).any(axis=1) for column in inputs.values() if column.dtype.kind == "f"]
    complete = np.flatnonzero(~np.any(missing, axis=0))[:rows]
    spoilt = {}
    for name, values in inputs.items():
        for j in range(values.shape[1]):
            taken = {key: column[complete] for key, column in inputs.items()}
            taken[name] = taken[name].astype(object if values.dtype.kind == "U" else values.dtype)
            taken[name][:, j] = _far_off(values[:, j])
            taken[name] = taken[name].astype(str if values.dtype.kind == "U" else values.dtype)
            spoilt[name if values.shape[1] == 1 else f"{name}[{j}]"] = taken
    return spoilt


def _far_off(column: np.ndarray) -> object:
    if column.dtype.kind == "U":
        return "never seen"
    present = column[~np.isnan(column)] if column.dtype.kind == "f" else column
    median = np.median(present)
    return median + 10 * 1.4826 * np.median(np.abs(present - median))
