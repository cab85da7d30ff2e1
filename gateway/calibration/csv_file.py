"""A CSV file as arrays by name, held strictly to its header. What each column becomes: `data_files.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.regular_file import read_regular

MOST_BYTES = 256 * 2**20
"""Of a file; its cells take about twenty times as much."""
_WHOLE = re.compile(r"\s*-?(?:0|[1-9][0-9]*)\s*")
_NUMBER = re.compile(
    r"\s*(?:[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?|nan|[-+]?inf(?:inity)?)?\s*",
    re.IGNORECASE,
)
_BOOLEAN = re.compile(r"true|false", re.IGNORECASE)


def csv_columns(path: Path, text: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The columns of a file by name. Empty lines hold no row.

    Args:    text: columns that are text whatever they hold.
    Raises:  ValueError that begins with the path and names the line; OSError.
    """
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header)
        rows = [row for row in reader if _is_row(path, reader.line_num, row, header)]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: is not CSV: {error}") from error
    if not rows:
        raise ValueError(f"{path}: holds a header and no rows")
    columns = zip(header, zip(*rows, strict=True), strict=True)
    return {name: np.array(cells) if name in text else _as_array(cells) for name, cells in columns}


def _decoded(path: Path) -> str:
    """The content of a file. Raises ValueError naming the first byte that is not UTF-8."""
    content = read_regular(path, MOST_BYTES, "save it as .npz or .parquet, or give fewer rows")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: line 1: is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.object.rfind(b"\n", 0, error.start) + 1  # the object has no byte order mark
        line, at = error.object.count(b"\n", 0, error.start) + 1, error.start - start + 1
        what = f"byte {at} (0x{error.object[error.start]:02x}) is not UTF-8; save the file as UTF-8"
        raise ValueError(f"{path}: line {line}: {what}") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raises ValueError unless the first line names the columns."""
    if not header:
        raise ValueError(f"{path}: line 1: is empty; the first line must name the columns")
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and delimiter in header[0]:
            raise ValueError(f"{path}: line 1: columns are separated by {name}; save it with commas")
    if all(name.strip() and _NUMBER.fullmatch(name) for name in header):
        raise ValueError(f"{path}: line 1: holds numbers; the first line must name the columns")
    check_names(f"{path}: line 1", header)


def check_names(at: str, names: Sequence[str]) -> None:
    """Raises ValueError for a column without a name, or with that of another."""
    for i, name in enumerate(names, 1):
        if not name.strip():
            raise ValueError(
                f"{at}: column {i} has no name; pandas saves its index so: leave it out with index=False"
            )
        if name in names[: i - 1]:
            raise ValueError(f"{at}: columns {names.index(name) + 1} and {i} are both named {name!r}")


def _is_row(path: Path, line: int, row: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a line holds a row; an empty one does not. Raises ValueError for another number of cells."""
    if row and len(row) != len(header):
        raise ValueError(f"{path}: line {line}: has {len(row)} cells; the header names {len(header)} columns")
    return bool(row)


def _as_array(cells: Sequence[str]) -> NDArray[Any]:
    if all(map(_WHOLE.fullmatch, cells)):
        return _whole([int(cell) for cell in cells])
    if all(map(_NUMBER.fullmatch, cells)):
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
    if all(map(_BOOLEAN.fullmatch, cells)):
        return np.array([cell.lower() == "true" for cell in cells])
    return np.array(cells)


def _whole(values: Sequence[int]) -> NDArray[Any]:
    """Whole numbers as int64; as uint64 or float64 where they are too large for it."""
    for dtype in (np.int64, np.uint64):
        try:
            return np.array(values, dtype)
        except OverflowError:
            pass
    return np.array(list(map(float, values)))
