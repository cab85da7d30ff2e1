"""One tensor on the wire: its declared form, and its two encodings read strictly and written exactly.

Reading never trusts a shape: the amount of data is compared with the shape's product (a Python int, so
it cannot overflow) before anything is allocated. A value outside its datatype is a problem, and is never
converted: no fraction becomes an integer, no integer wraps, no infinity enters a model, and no NaN unless
the tensor may have missing values (`TensorSpec.missing`); JSON writes those as null.
Arrays that come out are C-contiguous, aligned and read-only; binary ones share the request's memory
where its alignment allows.

Writing is bit-exact. FP32 is written in its own shortest decimal form, which reads back through a double
to the same float32: tried for every finite one, true of all but `_TWICE_ROUNDED` and its negative; a tensor
that holds it is written with the digits of a double. Only BF16 output can round: to nearest even.

    datatype  BOOL  UINT8..64  INT8..64  FP16    FP32  FP64  BF16             BYTES
    numpy     bool  u1..u8     i1..i8    f2      f4    f8    f4, bf16=True    object (of bytes)
    JSON in   yes   yes        yes       no      yes   yes   no               UTF-8 text
    JSON out  yes   yes        yes       yes     yes   yes   yes              UTF-8 text
"""

from __future__ import annotations

import array as arrays
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.tensors import Array, Shape
from fallbacks.oip.values import bf16_bits, flatten, join_byte_strings, split_byte_strings
from gateway.core.errors import InvalidRequest, Problem
from gateway.core.rows import Mask
from gateway.protocol.contract import TensorSpec
from gateway.protocol.problems import RequestProblems

_BINARY_ONLY = frozenset({"FP16", "BF16"})
LOWEST_BF16 = float.fromhex("-0x1.fep127")
_TWICE_ROUNDED = b"\xfd\x43\xae"  # the low bytes of 7.038531e-26 and its negative
_JSON_TYPES: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({float, int}),
    "O": frozenset({str}),
}
_NULL = frozenset({type(None)})
_JSON_NAMES = {"b": "true or false", "i": "an integer", "u": "an integer", "f": "a number", "O": "a string"}


def from_json(
    spec: TensorSpec, shape: Shape, data: object, at: str, problems: RequestProblems, *, booleans: bool = True
) -> Array | None:
    """A tensor from parsed JSON, flat or nested exactly as its shape; otherwise None, and a problem.

    Args: booleans: whether true or false may occur in the document; if not, types of floats need no check.
    Cost: FP32, flat: about 25 ns a value, and twice that with `booleans`.
    """
    if spec.datatype in _BINARY_ONLY:
        problems.add(at, f"{spec.datatype} travels as binary only: give binary_data_size")
        return None
    values = flatten(data, shape)
    if values is None:
        form = f"{math.prod(shape)} values, flat or nested as {list(shape)}"
        problems.add(at, f"must be a list of {form}")
        return None
    if spec.dtype.kind == "f" and not booleans and (numbers := _numbers(spec, values)) is not None:
        return _checked(spec, numbers.reshape(shape), at, problems)
    what = _misfit(spec, values, len(values) // shape[0])
    if what:
        problems.add(at, what)
        return None
    return _checked(spec, _to_array(spec, values).reshape(shape), at, problems)


def _numbers(spec: TensorSpec, flat: Sequence[Any]) -> Array | None:
    """The values, if they are numbers or booleans alone: `array` takes nothing else, and numpy would.

    What is too large for a float32 becomes infinite, which `_checked` refuses.
    """
    try:
        return np.frombuffer(arrays.array(spec.dtype.char, flat), spec.dtype)
    except (TypeError, OverflowError):
        return None


def _misfit(spec: TensorSpec, flat: list[Any], per_row: int) -> str:
    """The problem of the first value of another JSON type or outside an integer datatype; empty if none."""
    kind = spec.dtype.kind
    wrong = set(map(type, flat)) - _JSON_TYPES[kind]
    if spec.missing:
        wrong -= _NULL
    if wrong:
        first = next(i for i, value in enumerate(flat) if type(value) in wrong)
        return f"row {first // per_row}: {_type_name(flat[first])} is not {_JSON_NAMES[kind]}"
    if kind in "iu":
        whole = np.iinfo(spec.dtype)
        if min(flat) < whole.min or max(flat) > whole.max:
            first = next(i for i, value in enumerate(flat) if not whole.min <= value <= whole.max)
            limits = f"from {whole.min} to {whole.max}"
            return f"row {first // per_row}: {flat[first]} is not {spec.datatype}, {limits}"
    return ""


def _type_name(value: object) -> str:
    """How an error names a JSON value: bounded, whatever the caller sent."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _to_array(spec: TensorSpec, flat: Sequence[Any]) -> Array:
    if spec.datatype == "BYTES":
        array = np.empty(len(flat), np.object_)
        array[:] = [value.encode() if isinstance(value, str) else value for value in flat]
        return array
    if spec.datatype == "FP32":
        if (numbers := _numbers(spec, flat)) is not None:
            return numbers
        with np.errstate(over="ignore"):  # to infinity, which _checked refuses
            return np.array(flat, spec.dtype)
    return np.array(flat, spec.dtype)


def from_binary(
    spec: TensorSpec, shape: Shape, raw: memoryview, at: str, problems: RequestProblems
) -> Array | None:
    """A tensor from its binary form, without a copy where memory is aligned; else None, and a problem."""
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        items = split_byte_strings(raw, count)
        if items is None:
            problems.add(at, f"{raw.nbytes} bytes are not {count} times a 4-byte length and that many bytes")
            return None
        return _texts(spec, shape, items, at, problems)
    if raw.nbytes != count * spec.item_bytes:
        problems.add(at, f"{raw.nbytes} bytes; {spec.datatype} {list(shape)} takes {count * spec.item_bytes}")
        return None
    if spec.datatype == "BOOL":
        octets = np.frombuffer(raw, np.uint8)
        if octets.max() > 1:
            problems.add(at, f"row {int((octets > 1).argmax()) // (count // shape[0])}: not a byte 0 or 1")
            return None
    return _checked(spec, _view(spec, raw).reshape(shape), at, problems)


def from_values(
    spec: TensorSpec, shape: Shape, values: Sequence[Any], at: str, problems: RequestProblems
) -> Array | None:
    """A tensor from typed values, as a protobuf message holds them; otherwise None, and a problem."""
    count = math.prod(shape)
    if len(values) != count:
        problems.add(at, f"{len(values)} values; {list(shape)} takes {count}")
        return None
    if spec.dtype.kind in "iu":
        wide = np.array(values, np.uint64 if spec.dtype.kind == "u" else np.int64)
        whole = np.iinfo(spec.dtype)
        if wide.min() < whole.min or wide.max() > whole.max:
            first = int(((wide < whole.min) | (wide > whole.max)).argmax())
            limits = f"from {whole.min} to {whole.max}"
            problems.add(
                at, f"row {first // (count // shape[0])}: {wide[first]} is not {spec.datatype}, {limits}"
            )
            return None
        return _checked(spec, wide.astype(spec.dtype).reshape(shape), at, problems)
    if spec.datatype == "BYTES":
        return _texts(spec, shape, values, at, problems)
    return _checked(spec, _to_array(spec, values).reshape(shape), at, problems)


def _texts(
    spec: TensorSpec, shape: Shape, items: Sequence[bytes], at: str, problems: RequestProblems
) -> Array | None:
    """BYTES that came as bytes; None, and a problem, where they must be UTF-8 text and are not."""
    if spec.utf8 and (first := _first_no_text(items)) is not None:
        problems.add(at, f"row {first // (len(items) // shape[0])}: not UTF-8 text")
        return None
    return _checked(spec, _to_array(spec, items).reshape(shape), at, problems)


def _first_no_text(items: Sequence[bytes]) -> int | None:
    """The index of the first item that is not UTF-8; None if all are. Cost: 60 ns an item."""
    for i, item in enumerate(items):
        try:
            item.decode()
        except UnicodeDecodeError:
            return i
    return None


def _view(spec: TensorSpec, raw: memoryview) -> Array:
    if spec.bf16:
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    array: Array = np.frombuffer(raw, spec.dtype)
    return array if array.flags.aligned else array.copy()


def _checked(spec: TensorSpec, array: Array, at: str, problems: RequestProblems) -> Array | None:
    """The array, read-only, if it is in range, and NaN only where it may be; else None, and the first row."""
    if spec.bounds is not None:
        low, high = spec.bounds
        # NaN survives both reductions and fails both comparisons.
        if not (low <= np.minimum.reduce(array, axis=None) and np.maximum.reduce(array, axis=None) <= high):
            what = _first_outside(spec, array)
            if what:
                problems.add(at, what)
                return None
    array.flags.writeable = False
    return array


def _first_outside(spec: TensorSpec, array: Array) -> str:
    """The problem of the first value that is not allowed; empty if only missing values lie outside."""
    assert spec.bounds is not None
    low, high = spec.bounds
    flat = array.reshape(-1)
    allowed = (low <= flat) & (flat <= high)
    if spec.missing:
        allowed |= np.isnan(flat)
        if allowed.all():
            return ""
    first = int(np.argmin(allowed))
    where = f"row {first // (flat.size // array.shape[0])}"
    value = flat[first]
    if not np.isfinite(value):
        return f"{where}: not a finite {spec.datatype}"
    return f"{where}: {value!s} is {f'below {spec.low}' if value < low else f'above {spec.high}'}"


def to_json(spec: TensorSpec, array: Array, withheld: Mask | None = None) -> Array | list[Any]:
    """The row-major values as orjson writes them exactly; every value of a withheld row is null.

    Raises:  InvalidRequest if BYTES are not UTF-8: the caller can ask for them in binary.
    """
    if spec.datatype != "BYTES" and (withheld is None or spec.dtype.kind == "f"):
        if spec.datatype == "FP32" and _TWICE_ROUNDED in array.tobytes():  # elsewhere it costs digits only
            return array.astype(np.float64).reshape(-1)
        return np.ascontiguousarray(array).reshape(-1)  # orjson writes NaN as null
    try:
        flat = (
            [_octets(v).decode() for v in array.flat]
            if spec.datatype == "BYTES"
            else array.reshape(-1).tolist()
        )
    except UnicodeDecodeError:
        problem = Problem(f"outputs.{spec.name}", "is not UTF-8 text: ask for it with binary_data")
        raise InvalidRequest([problem]) from None
    if withheld is not None:
        per_row = array.size // len(withheld)
        for row in np.flatnonzero(withheld).tolist():
            flat[row * per_row : (row + 1) * per_row] = [None] * per_row
    return flat


def to_binary(spec: TensorSpec, array: Array) -> bytes | memoryview:
    """The row-major little-endian bytes."""
    if spec.datatype == "BYTES":
        return join_byte_strings(_octets(value) for value in array.flat)
    if spec.bf16:
        return bf16_bits(array).tobytes()
    return np.ascontiguousarray(array).data


def to_values(spec: TensorSpec, array: Array) -> list[Any]:
    """The row-major values as a protobuf message takes them. FP16 and BF16 have none of that form."""
    if spec.datatype == "BYTES":
        return [_octets(value) for value in array.flat]
    return array.reshape(-1).tolist()


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def nearest_bf16(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest values that BF16 can hold, ties to even; beyond its largest they are infinite."""
    return (bf16_bits(array).astype(np.uint32) << 16).view(np.float32)


def blank(spec: TensorSpec, shape: Shape) -> Array:
    """The value of withheld rows: NaN, the type's minimum, or empty."""
    match spec.dtype.kind:
        case "f":
            fill: object = np.nan
        case "O":
            fill = b""
        case "i":
            fill = np.iinfo(spec.dtype).min
        case _:
            fill = 0
    return np.full(shape, fill, spec.dtype)


def classify(
    spec: TensorSpec, array: Array, count: int, withheld: Mask | None, labels: Sequence[str] = ()
) -> tuple[TensorSpec, Array]:
    """The `count` largest values of each row as BYTES[n, count], the first of equals first.

    Each is `value:index`, or `value:index:label` where there are as many labels as values in a row.
    """
    flat = array.reshape(len(array), -1)
    last = flat.shape[1] - 1
    order = last - np.argsort(flat[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    named = [f":{label}" for label in labels] if len(labels) == last + 1 else [""] * (last + 1)
    texts = np.full(order.shape, b"", np.object_)
    for row in range(len(flat)):
        if withheld is None or not withheld[row]:
            texts[row] = [f"{flat[row, i]!s}:{i}{named[i]}".encode() for i in order[row]]
    text_spec = replace(spec, dtype=np.dtype(np.object_), shape=(None, None), low=None, high=None, bf16=False)
    return text_spec, texts
