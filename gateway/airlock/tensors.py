"""Weights of a model file: as many bytes as their shape declares, and finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from onnx import TensorProto, numpy_helper

from gateway.airlock.walk import Scope, attribute_tensors, scope_tensors

MOST_VALUES: Final = 2**31
FLOATS: Final = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16))
BITS: Final[Mapping[int, int]] = {
    **dict.fromkeys((TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8), 8),
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16, TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    **dict.fromkeys((TensorProto.INT32, TensorProto.UINT32, TensorProto.FLOAT), 32),
    **dict.fromkeys((TensorProto.INT64, TensorProto.UINT64, TensorProto.DOUBLE, TensorProto.COMPLEX64), 64),
    TensorProto.COMPLEX128: 128,
    **dict.fromkeys((TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2), 8),
    **dict.fromkeys((TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT8E8M0), 8),
    **dict.fromkeys((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1), 4),
}
"""Bits of one value in `raw_data`, by data type."""

SELECTING: Final = frozenset(
    ("Where", "Concat", "Identity", "Cast", "Expand", "Equal", "IsNaN", "Constant", "Reshape", "Unsqueeze")
)
"""Operators that only choose or move values: a single NaN may go there to mark what is missing."""

HOLD_MISSING: Final = frozenset(("Imputer", "LabelEncoder"))
"""Operators whose attributes may say what stands for a missing value, NaN included."""

SEPARATED: Final = "membership_values"
"""The attribute of `TreeEnsemble` whose lists are separated by NaN."""


def tensor_problems(scopes: list[Scope]) -> Iterator[str]:
    """The first tensor that lacks what it declares, and the first that is not finite."""
    tensors = [named for scope in scopes for named in scope_tensors(scope)]
    wrong = next(((name, what) for name, one in tensors if (what := _size_problem(one))), None)
    if wrong is not None:
        yield f"the weights {wrong[0]!r} {wrong[1]}; the file is damaged, export it again"
        return
    readers = _readers(scopes)
    floats = [named for named in _must_be_numbers(scopes) if named[1].data_type in FLOATS]
    bad = next(((name, what) for name, one in floats if (what := _not_finite(one, readers.get(name)))), None)
    if bad is not None:
        yield f"the weights {bad[0]!r} hold {bad[1]}; train or export it again"
    yield from _attribute_problems(scopes)


def declared_values(dims: list[int]) -> int:
    """How many values a shape declares. Raises ValueError (what is wrong) for one that cannot be."""
    if any(dim < 0 for dim in dims):
        raise ValueError(f"declare the shape {dims}")
    if (count := math.prod(dims)) > MOST_VALUES:
        raise ValueError(f"declare {count} values, over the {MOST_VALUES} allowed")
    return count


def _size_problem(tensor: TensorProto) -> str:
    """What is wrong with a tensor's size; empty if nothing is."""
    try:
        count = declared_values(list(tensor.dims))
    except ValueError as error:
        return str(error)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.HasField("segment"):
        return "lie in another file"
    given, wanted = _given(tensor, count)
    if given in wanted:
        return ""
    return f"declare {count} values and hold {given} of {max(wanted)} entries"


def _given(tensor: TensorProto, count: int) -> tuple[int, set[int]]:
    """How many entries a tensor holds, and how many of them would do."""
    kind, bits = tensor.data_type, BITS.get(tensor.data_type, 0)
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), {math.ceil(count * bits / 8)} if bits else {len(tensor.raw_data)}
    if kind == TensorProto.STRING:
        return len(tensor.string_data), {count}
    if kind in (TensorProto.FLOAT, TensorProto.COMPLEX64):
        return len(tensor.float_data), {count * (1 + (kind == TensorProto.COMPLEX64))}
    if kind in (TensorProto.DOUBLE, TensorProto.COMPLEX128):
        return len(tensor.double_data), {count * (1 + (kind == TensorProto.COMPLEX128))}
    if kind == TensorProto.INT64:
        return len(tensor.int64_data), {count}
    if kind in (TensorProto.UINT32, TensorProto.UINT64):
        return len(tensor.uint64_data), {count}
    return len(tensor.int32_data), {count, math.ceil(count * bits / 8)} if 0 < bits < 8 else {count}


def _not_finite(tensor: TensorProto, readers: set[str] | None) -> str:
    """What of a tensor of floats is not finite; empty if all is, or if it may be so.

    Infinities may stand beside one other value, as in a mask or a bound.
    """
    array = numpy_helper.to_array(tensor).reshape(-1)
    finite = np.isfinite(array)
    if finite.all():
        return ""
    if np.isnan(array[~finite]).any():
        may = array.size == 1 and readers is not None and readers <= SELECTING
        return "" if may else "a value that is no number (NaN)"
    rest = array[finite]
    return "" if not rest.size or (rest == rest[0]).all() else "an infinite value"


def _readers(scopes: list[Scope]) -> dict[str, set[str]]:
    """The types of the operators that read each value."""
    readers: dict[str, set[str]] = {}
    for scope in scopes:
        for node in scope.nodes:
            for name in node.input:
                readers.setdefault(name, set()).add(node.op_type)
    return readers


def _must_be_numbers(scopes: list[Scope]) -> Iterator[tuple[str, TensorProto]]:
    """The tensors but those in attributes that may say what stands for a missing value."""
    for scope in scopes:
        yield from ((tensor.name, tensor) for tensor in scope.weights)
        for node in scope.nodes:
            if node.op_type not in HOLD_MISSING and not any(a.name == SEPARATED for a in node.attribute):
                yield from ((node.output[0] if node.output else "", one) for one in attribute_tensors(node))


def _attribute_problems(scopes: list[Scope]) -> Iterator[str]:
    """Coefficients and thresholds that are no number: those of trees and linear models lie in attributes."""
    for scope in scopes:
        for node in scope.nodes:
            for attribute in node.attribute if node.op_type not in HOLD_MISSING else ():
                if any(map(math.isnan, attribute.floats)):
                    what = f"attribute {attribute.name!r} of {node.op_type}"
                    yield f"{what} holds a value that is no number (NaN); train or export it again"
                    return
