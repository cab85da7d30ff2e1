"""A file of rows as arrays by name: `.npz`, CSV or Parquet.

An `.npz` holds arrays of any shape. CSV and Parquet hold one column a name, one row a line:

| column | as an array |
|---|---|
| whole numbers | int64; float64 if a cell is empty |
| numbers | float64; an empty cell is NaN, a missing value |
| true and false | bool |
| anything else | text, as it stands; an empty cell is empty text |

A number with a leading zero (`007`) is text. Lists in Parquet, all of one length, are an array of two axes.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gateway.calibration.csv_file import csv_columns
from gateway.calibration.parquet_file import parquet_columns
from guards import arrays

LFS_POINTER = b"version https://git-lfs"
MOST_BYTES = 2 * 2**30
"""Of a file of rows, packed or not."""
MEND = "save one with np.savez(FILE, x=..., y=...)"


def load_columns(path: Path, text: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name, in the file's order.

    Args:    text: columns of a CSV that are text whatever they hold.
    Raises:  ValueError that begins with the path and names the line or column; OSError.
    Cost:    a CSV: about a second for a million cells.
    """
    _refuse_other_files(path)
    match path.suffix.lower():
        case ".npz":
            return arrays.load(path, MEND, MOST_BYTES)
        case ".csv":
            return csv_columns(path, text)
        case ".parquet" | ".pq":
            return parquet_columns(path, MOST_BYTES)
        case ".npy":
            raise ValueError(f"{path}: an .npy holds one array without a name; {MEND}")
        case other:
            what = f"{other!r} is no format of rows" if other else "has no suffix"
            raise ValueError(f"{path}: {what}; give .npz, .csv or .parquet")


def _refuse_other_files(path: Path) -> None:
    """Raises ValueError for what is no regular file, too large, or the pointer to a file; OSError."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path}: is no regular file; give a file of rows")
    if about.st_size > MOST_BYTES:
        raise ValueError(f"{path}: has {about.st_size} bytes, over the {MOST_BYTES} allowed; give fewer rows")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path}: is a git-lfs pointer, not the rows; run `git lfs pull`")
