"""Held-out rows from a file, checked by the contract that checks live traffic.

One array a model input (`input_arrays.py`), and `y`, the label or true value of every row.

An array `group`, one integer or text a row, says which rows belong together, such as those of one person:
they count as one sample (`samples.py`). An array `expected` holds what the model that was exported gave for
the same rows, as the first output of its form; `expected.NAME` the same of output NAME: `parity.py` compares.

In the file of a model with an input of one of these names, the array is the input and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.input_arrays import find_inputs, listed, misspelt, not_finite
from gateway.core.decision import Tensors
from gateway.protocol.contract import Contract

Y, GROUP, EXPECTED = "y", "group", "expected"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The rows of a file.

    x: inputs by name, as a request would bring them. y: one integer, float, bool or text a row as the file
    has it, None without. group: one integer or text a row, None without. expected: by output, n rows each.
    unused: the arrays that nothing takes.
    """

    x: Tensors
    y: NDArray[Any] | None
    group: NDArray[Any] | None
    expected: Mapping[str, NDArray[Any]]
    unused: tuple[str, ...] = ()


def read(arrays: Mapping[str, NDArray[Any]], contract: Contract, *, labels_needed: bool = True) -> Dataset:
    """The rows in the arrays of a file. labels_needed: whether `y` must be there.

    Raises:  ValueError naming the array, the row and the problem.
    """
    own = {name: a for name, a in arrays.items() if _is_own(name) and name not in contract.inputs_by_name}
    y = _labels(own.get(Y))
    if y is None and labels_needed:
        if Y in contract.inputs_by_name:
            mend = "give that input another name by `names: {OTHER: y}` on every model of the policy"
            raise ValueError(f"{Y}: is an input of the model, so labels have no name; {mend}")
        what = "missing: name the array or column of labels, or true values, y"
        raise ValueError(f"{Y}: {what}; the file holds {listed(arrays)}")
    others = {name: array for name, array in arrays.items() if name not in own}
    x, used = find_inputs(others, contract, None if y is None else len(y))
    n = len(x[contract.inputs[0].name])
    unused = tuple(name for name in others if name not in used)
    return Dataset(x, y, _group(own.get(GROUP), n), _expected(own, contract, n), unused)


def _is_own(name: str) -> bool:
    return name in (Y, GROUP, EXPECTED) or name.startswith(f"{EXPECTED}.")


def _labels(y: NDArray[Any] | None) -> NDArray[Any] | None:
    if y is None:
        return None
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        mend = ""
        if y.ndim == 2:
            one = y.shape[1] == 1
            single = y.dtype.kind in "biuf" and bool((y.sum(axis=1) == 1).all())
            mend = "; of a column a class, give y.argmax(axis=1)" if single else ""
            mend = "; give y.reshape(-1)" if one else mend
        raise ValueError(f"{Y}: is {y.dtype}{list(y.shape)}, not one number or text a row{mend}")
    if not len(y):
        raise ValueError(f"{Y}: holds no rows")
    if y.dtype.kind == "f" and (what := not_finite(y)):
        raise ValueError(f"{Y}: {what}; leave rows without a label or true value out")
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{Y}: holds bytes that are not UTF-8 text; save it with astype(str)") from error
    return y


def _group(group: NDArray[Any] | None, n: int) -> NDArray[Any] | None:
    if group is None:
        return None
    if group.dtype.kind not in "iuUS" or group.ndim != 1:
        raise ValueError(f"{GROUP}: is {group.dtype}{list(group.shape)}, not one integer or text a row")
    if len(group) != n:
        raise ValueError(f"{GROUP}: holds {len(group)} values, not one for each of {n} rows")
    return group


def _fitting(array: NDArray[Any], contract: Contract) -> str:
    """The first output of the form of an array, or the first one."""
    text = array.dtype.kind in "OSU"
    for spec in contract.outputs:
        sizes = tuple(1 if size is None else size for size in spec.shape[1:])
        same = math.prod(sizes) == math.prod(array.shape[1:]) and (spec.datatype == "BYTES") == text
        if same and (array.dtype.kind != "f" or spec.dtype.kind == "f"):
            return spec.name
    return contract.outputs[0].name


def _expected(own: Mapping[str, NDArray[Any]], contract: Contract, n: int) -> dict[str, NDArray[Any]]:
    """The expected outputs by the name of the output."""
    known = [spec.name for spec in contract.outputs]
    found: dict[str, NDArray[Any]] = {}
    for name, array in own.items():
        if name in (Y, GROUP):
            continue
        output = _fitting(array, contract) if name == EXPECTED else name.removeprefix(f"{EXPECTED}.")
        if output not in known:
            what = f"{output!r} is no exposed output of the model: {listed(known)}"
            raise ValueError(f"{name}: {what}{misspelt([output], known)}")
        if output in found:
            raise ValueError(f"{name}: is output {output!r}, for which the file has two arrays")
        if array.shape[:1] != (n,):
            raise ValueError(f"{name}: has shape {array.shape}, not one entry for each of {n} rows")
        found[output] = array
    return found
