"""Held-out rows from a file, checked by the contract that checks live traffic.

One array a model input, under the input's name (`x` will do for the first), and integer labels `y`. A value
is taken where the wire could bring it: floats are rounded to the input's precision, nothing else changes.
Text is an array of text or of byte strings, in which numpy cannot keep a NUL at the end.
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


def read(held: Mapping[str, NDArray[Any]], contract: Contract) -> tuple[Tensors, Labels]:
    """The inputs by name, and the labels. Raises ValueError: which array, and what is wrong with it."""
    if "y" not in held:
        raise ValueError(f"y: missing, one integer label a row; the file holds {', '.join(sorted(held))}")
    if held["y"].dtype.kind not in "iu" or held["y"].ndim != 1:
        raise ValueError(f"y: is {held['y'].dtype}{list(held['y'].shape)}, not one integer label a row")
    y = held["y"].astype(np.int64)
    if not len(y):
        raise ValueError("y: holds no rows")
    x: dict[str, NDArray[Any]] = {}
    for spec in contract.inputs:
        other = "x" if spec is contract.inputs[0] and "x" not in contract.inputs_by_name else spec.name
        name = spec.name if spec.name in held else other
        if name not in held:
            raise ValueError(f"{spec.name}: missing; the file holds {', '.join(sorted(held))}")
        array = _as_sent(name, held[name], spec)
        if array.shape[:1] != (len(y),) or not spec.fits(array):
            raise ValueError(f"{name}: has shape {array.shape}, not {spec.wire_shape} with {len(y)} rows")
        if spec.bounds is not None and not ((array >= spec.bounds[0]) & (array <= spec.bounds[1])).all():
            raise ValueError(f"{name}: holds values outside {spec.bounds[0]} to {spec.bounds[1]}")
        x[spec.name] = array
    return x, y


def _as_sent(name: str, held: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """The values as they would come over the wire. Raises ValueError where they could not."""
    kinds = "US" if spec.datatype == "BYTES" else "biuf"
    if held.dtype.kind not in kinds:
        what = "text" if spec.datatype == "BYTES" else "numbers"
        raise ValueError(f"{name}: is {held.dtype}, not {what} that {spec.datatype} can hold")
    if held.dtype.kind in "US":
        items = [item.encode() if isinstance(item, str) else item for item in held.reshape(-1).tolist()]
        texts = np.empty(len(items), np.object_)
        texts[:] = items
        return texts.reshape(held.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # floats become infinite, and are refused later
        array = held.astype(spec.dtype)
        if spec.dtype.kind in "biu" and not (array == held).all():
            raise ValueError(f"{name}: holds values that {spec.datatype} cannot")
    return nearest_bf16(array) if spec.bf16 else array
