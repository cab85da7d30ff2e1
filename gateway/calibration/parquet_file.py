"""A Parquet file as arrays by name, by pyarrow, an extra. What each column becomes: `data_files.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.csv_file import check_names

BATCH_ROWS = 4096


def parquet_columns(path: Path, most_bytes: int) -> dict[str, NDArray[Any]]:
    """The columns of a file by name. A null counts as an empty cell.

    Args:    most_bytes: of all columns unpacked.
    Raises:  ValueError that begins with the path: no pyarrow, no Parquet, too large, a column of another
             type; OSError.
    """
    with path.open("rb") as file:
        try:
            import pyarrow
            from pyarrow import parquet

            table = _bounded(parquet.ParquetFile(file), most_bytes)
        except ImportError as error:
            what = "reading Parquet needs pyarrow: pip install 'failsafe-gateway[parquet]'"
            raise ValueError(f"{path}: {what}; or save the rows as .npz or CSV") from error
        except pyarrow.ArrowException as error:
            raise ValueError(f"{path}: is not Parquet: {error}") from error
        except OverflowError as error:
            raise ValueError(f"{path}: {error}; give fewer rows") from error
    check_names(str(path), table.column_names)
    if not table.num_rows or not table.num_columns:
        raise ValueError(f"{path}: holds no rows")
    columns = zip(table.column_names, table.columns, strict=True)
    return {name: _as_array(f"{path}: column {name!r}", column.combine_chunks()) for name, column in columns}


def _bounded(file: Any, most_bytes: int) -> Any:
    """The whole table, read in parts. Raises OverflowError as soon as they are too large together."""
    from pyarrow import Table

    parts, held = [], 0
    for part in file.iter_batches(BATCH_ROWS):
        held += part.nbytes
        if held > most_bytes:
            raise OverflowError(f"its columns have over {most_bytes} bytes unpacked")
        parts.append(part)
    return Table.from_batches(parts, file.schema_arrow)


def _as_array(at: str, column: Any) -> NDArray[Any]:
    from pyarrow import types

    kind, cells = column.type, column.to_pylist()
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = {0 if cell is None else len(cell) for cell in cells}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"{at} holds lists of several lengths, or empty ones")
        return _as_array(at, column.flatten()).reshape(len(column), lengths.pop(), -1).squeeze(2)
    if types.is_string(kind) or types.is_large_string(kind):
        return np.array(["" if cell is None else cell for cell in cells])
    whole = types.is_integer(kind) or types.is_boolean(kind)
    if whole and not column.null_count:
        return np.array(cells, kind.to_pandas_dtype() if kind in ("bool", "uint64") else np.int64)
    if whole or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return np.array([np.nan if cell is None else float(cell) for cell in cells])
    raise ValueError(f"{at} is {kind}: save it as a number or as text")
