"""Held-out rows from a file, checked by the contract that checks live traffic.

One array a model input, under the input's name (`x` is accepted for the first), and integer labels `y`. A
value is accepted if a request could send it: floats are rounded to the input's precision, nothing else
changes. Text is an array of text or of byte strings, in which numpy cannot keep a NUL at the end.

An array `group`, one integer or text a row, says which rows belong together, such as those of one person:
they count as one sample (`samples.py`). In the file of a model with an input of that name, `group` is the
input, and no array says which rows belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.policy.kinds.rows import Labels
from gateway.protocol.contract import Contract, TensorSpec
from gateway.protocol.tensors import nearest_bf16

GROUP = "group"


def read(
    arrays: Mapping[str, NDArray[Any]], contract: Contract
) -> tuple[Tensors, Labels, NDArray[Any] | None]:
    """The inputs by name, the labels, and the group of every row where the file names it.

    Raises:  ValueError naming the array and the problem.
    """
    if "y" not in arrays:
        raise ValueError(f"y: missing, one integer label a row; the file holds {', '.join(sorted(arrays))}")
    if arrays["y"].dtype.kind not in "iu" or arrays["y"].ndim != 1:
        raise ValueError(f"y: is {arrays['y'].dtype}{list(arrays['y'].shape)}, not one integer label a row")
    y = arrays["y"].astype(np.int64)
    if not len(y):
        raise ValueError("y: holds no rows")
    x: dict[str, NDArray[Any]] = {}
    for spec in contract.inputs:
        other = "x" if spec is contract.inputs[0] and "x" not in contract.inputs_by_name else spec.name
        name = spec.name if spec.name in arrays else other
        if name not in arrays:
            raise ValueError(f"{spec.name}: missing; the file holds {', '.join(sorted(arrays))}")
        array = _as_sent(name, arrays[name], spec)
        if array.shape[:1] != (len(y),) or not spec.fits(array):
            raise ValueError(f"{name}: has shape {array.shape}, not {spec.wire_shape} with {len(y)} rows")
        if spec.bounds is not None and not ((array >= spec.bounds[0]) & (array <= spec.bounds[1])).all():
            raise ValueError(f"{name}: holds values outside {spec.bounds[0]} to {spec.bounds[1]}")
        x[spec.name] = array
    return x, y, None if GROUP in contract.inputs_by_name else _group(arrays, len(y))


def _group(arrays: Mapping[str, NDArray[Any]], n: int) -> NDArray[Any] | None:
    group = arrays.get(GROUP)
    if group is None:
        return None
    if group.dtype.kind not in "iuUS" or group.ndim != 1:
        raise ValueError(f"{GROUP}: is {group.dtype}{list(group.shape)}, not one integer or text a row")
    if len(group) != n:
        raise ValueError(f"{GROUP}: holds {len(group)} values, not one for each of {n} rows")
    return group


def _as_sent(name: str, values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The values as a request would send them. Raises ValueError if none could."""
    kinds = "US" if spec.datatype == "BYTES" else "biuf"
    if values.dtype.kind not in kinds:
        what = "text" if spec.datatype == "BYTES" else "numbers"
        raise ValueError(f"{name}: is {values.dtype}, not {what} that {spec.datatype} can hold")
    if values.dtype.kind in "US":
        items = [item.encode() if isinstance(item, str) else item for item in values.reshape(-1).tolist()]
        texts = np.empty(len(items), np.object_)
        texts[:] = items
        return texts.reshape(values.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # floats become infinite, and are refused later
        array = values.astype(spec.dtype)
        if spec.dtype.kind in "biu" and not (array == values).all():
            raise ValueError(f"{name}: holds values that {spec.datatype} cannot")
    return nearest_bf16(array) if spec.bf16 else array
