"""The inputs of a model from the arrays of a file, each value as a request would bring it.

| the model has | the file has |
|---|---|
| any inputs | an array for each, under the input's name; `x` will do for the first |
| inputs of one value a row | a column for each, under the input's name |
| one input of f numbers a row | f columns of numbers, joined in the file's order |

A value is accepted if a request could send it: floats are rounded to the input's precision, nothing else
changes. Text is an array of text or of byte strings, in which numpy cannot keep a NUL at the end. Rows count
from 0, as on the wire.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.policy.locate import closest
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.tensors import nearest_bf16

LISTED = 20
"""How many names a message lists."""


class _Found(NamedTuple):
    """An array of the file for one input. columns: the names of those that it was joined from."""

    name: str
    array: NDArray[Any]
    columns: tuple[str, ...] = ()


def find_inputs(
    arrays: Mapping[str, NDArray[Any]], contract: Contract, rows: int | None
) -> tuple[Tensors, set[str]]:
    """Every input by name, and which of the arrays they were made of.

    Args:    arrays: those of the file that are no labels; rows: how many there must be, None: any number.
    Raises:  ValueError naming the array, the row and the problem.
    """
    x: dict[str, NDArray[Any]] = {}
    found = _found(arrays, contract)
    for spec in contract.inputs:
        one = found[spec.name]
        array = _as_sent(one, spec)
        if rows is None:
            rows = len(array) if array.ndim else 0
        if array.shape[:1] != (rows,) or not spec.fits(array):
            what = f"{one.name}: has shape {array.shape}, not {spec.wire_shape} with {rows} rows"
            raise ValueError(what + _shape_mend(array, spec, rows))
        x[spec.name] = array
    if not rows:
        raise ValueError(f"{found[contract.inputs[0].name].name}: holds no rows")
    return x, {name for one in found.values() for name in one.columns or (one.name,)}


def _found(arrays: Mapping[str, NDArray[Any]], contract: Contract) -> dict[str, _Found]:
    first = contract.inputs[0]
    names = {spec.name: spec.name for spec in contract.inputs}
    if first.name not in arrays and "x" not in names and "x" in arrays:
        names[first.name] = "x"
    missing = [name for name in names.values() if name not in arrays]
    if not missing:
        return {name: _Found(other, arrays[other]) for name, other in names.items()}
    if len(contract.inputs) == 1 and _is_table_row(first) and _are_columns(arrays):
        return {first.name: _joined(arrays, first)}
    what = f"{', '.join(missing)}: missing; the file holds {listed(arrays) or 'nothing else'}"
    raise ValueError(what + misspelt(missing, set(arrays) - set(names.values())))


def _is_table_row(spec: TensorSpec) -> bool:
    return spec.dtype.kind != "O" and len(spec.shape) == 2


def _are_columns(arrays: Mapping[str, NDArray[Any]]) -> bool:
    return bool(arrays) and all(array.ndim == 1 for array in arrays.values())


def _joined(columns: Mapping[str, NDArray[Any]], spec: TensorSpec) -> _Found:
    """The columns as one array. Raises ValueError for another number of them, or one that is no numbers."""
    wanted = spec.shape[1]
    if wanted not in (None, len(columns)):
        raise ValueError(
            f"{spec.name}: takes {wanted} numbers a row, and the file has {len(columns)} columns for it: "
            f"{listed(columns)}; leave out what the model does not take, or give one array {spec.name!r}"
        )
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise ValueError(f"{name}: {_no_numbers(column, spec)}")
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"{listed(columns)}: have different numbers of rows")
    return _Found(spec.name, np.stack(list(columns.values()), axis=1), tuple(columns))


def _as_sent(found: _Found, spec: TensorSpec) -> NDArray[Any]:
    """The values as a request would send them. Raises ValueError if none could."""
    name, values = found.name, found.array
    if values.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] in (1, None):
        values = values.reshape(-1, 1)
    if spec.datatype == "BYTES":
        return _as_bytes(name, values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name}: {_no_numbers(values, spec)}")
    if values.dtype.kind == "f" and (what := not_finite(values, found.columns, nan_too=not spec.missing)):
        raise ValueError(f"{name}: {what}; {_mend(what, spec)}")
    with np.errstate(over="ignore", invalid="ignore"):  # floats become infinite, and are refused below
        array = values.astype(spec.dtype)
    if spec.dtype.kind in "biu" and not (same := array == values).all():
        what = _first(~same, values, found.columns)
        raise ValueError(f"{name}: holds values that {spec.datatype} cannot, first {what}")
    if spec.bf16:
        array = nearest_bf16(array)
    if spec.bounds is not None:
        inside = ((array >= spec.bounds[0]) & (array <= spec.bounds[1])) | np.isnan(array)
        if not inside.all():
            what = _first(~inside, values, found.columns)
            raise ValueError(
                f"{name}: holds values outside {spec.bounds[0]} to {spec.bounds[1]}, first {what}"
            )
    return array


def _shape_mend(array: NDArray[Any], spec: TensorSpec, rows: int) -> str:
    """How to correct a shape that is not that of the input, or nothing."""
    if array.ndim == 1 and len(array) == rows and len(spec.shape) > 1:
        return "; it has one value a row: give an array of several in an .npz, or a Parquet column of lists"
    if spec.fits(array):
        return f"; give as many rows of {spec.name!r} as of labels and of other inputs"
    return ""


def _as_bytes(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "US":
        raise ValueError(f"{name}: is {values.dtype}, not text that BYTES can hold; save it with astype(str)")
    items = [item.encode() if isinstance(item, str) else item for item in values.reshape(-1).tolist()]
    texts = np.empty(len(items), np.object_)
    texts[:] = items
    return texts.reshape(values.shape)


def _no_numbers(values: NDArray[Any], spec: TensorSpec) -> str:
    """Why an array cannot be numbers: its type, or its first text that is no number."""
    if values.dtype.kind != "U":
        return f"is {values.dtype}, not numbers that {spec.datatype} can hold"
    what = f"is text, not numbers that {spec.datatype} can hold"
    for index, text in np.ndenumerate(values):
        try:
            float(text)
        except ValueError:
            mend = "leave the cell empty where a value is missing" if text.strip() else "it is empty"
            return f"{what}: row {index[0]} holds {text[:40]!r}; {mend}"
    return f"{what}; save it with astype(float)"


def not_finite(values: NDArray[Any], columns: Sequence[str] = (), *, nan_too: bool = True) -> str:
    """The first value that is infinite, or NaN if that counts; empty if there is none."""
    nan = np.isnan(values)
    if nan_too and nan.any():
        return f"holds NaN, first in {_place(nan, columns)}"
    infinite = np.isinf(values)
    return f"holds infinity, first in {_place(infinite, columns)}" if infinite.any() else ""


def _mend(what: str, spec: TensorSpec) -> str:
    if not what.startswith("holds NaN"):
        return "leave such rows out: infinity is never data"
    mend = "encode missing values as the model was trained to have them, or leave such rows out"
    if spec.dtype.kind != "f":
        return mend
    return f"{mend}; if the model takes NaN, say `inputs: {{{spec.name}: {{missing: allow}}}}` in the policy"


def _first(wrong: NDArray[np.bool_], values: NDArray[Any], columns: Sequence[str]) -> str:
    return f"{values[np.unravel_index(int(wrong.argmax()), wrong.shape)]!s} in {_place(wrong, columns)}"


def _place(wrong: NDArray[np.bool_], columns: Sequence[str]) -> str:
    """Where the first of these is: its row, and its column if a row has several."""
    row, *rest = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    if wrong[0].size == 1:
        return f"row {row}"
    if len(rest) == 1:
        return f"row {row}, column {columns[rest[0]]!r}" if columns else f"row {row}, column {rest[0]}"
    return f"row {row}, at {rest}"


def listed(names: Iterable[str]) -> str:
    """The names, at most 20 of them."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def misspelt(missing: Iterable[str], known: Collection[str]) -> str:
    """The known names that are nearest to the missing ones, as a question; empty without any."""
    near = {name: None for one in missing if (name := closest(one, known))}
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""
