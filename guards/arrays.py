"""Serialisation of fitted objects: named arrays in one `.npz`, without pickled objects.

A fitted object is a frozen dataclass whose fields are arrays, numbers, strings, other fitted objects, or
tuples of these. Its packed form has one array per leaf, `name/field/...`, and an entry `name#` that holds
the class name of a dataclass or the length of a tuple. Reading follows the annotations of the expected
class, so a file can name only classes that the annotations allow. Names of stored classes and of their fields
are part of the file format: a rename breaks every `guards.npz`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from guards.npz_file import UNREADABLE, ObjectArray, read_npz

Arrays: TypeAlias = dict[str, NDArray[Any]]
T = TypeVar("T")
S = TypeVar("S", bound=np.generic)

MOST_BYTES: Final = 512 * 2**20
"""Of a fitted file, packed or not."""

_SCALARS = {bool: "b", int: "i", float: "f", str: "U"}


def read_only(array: NDArray[S]) -> NDArray[S]:
    """A read-only, contiguous copy: the form in which a fitted object holds an array."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def pack(name: str, obj: object) -> Arrays:
    """Flatten a fitted object to named arrays; every key begins with `name`.

    Raises:  ValueError for a type that has no array form.
    """
    if isinstance(obj, np.ndarray):
        return {name: obj}
    if isinstance(obj, bool | int | float | str):
        return {name: np.array(obj)}
    if isinstance(obj, tuple):
        parts = {str(i): item for i, item in enumerate(obj)}
        packed: Arrays = {f"{name}#": np.array(len(obj))}
    elif is_dataclass(obj) and not isinstance(obj, type):
        parts = {field.name: getattr(obj, field.name) for field in fields(obj)}
        packed = {f"{name}#": np.array(type(obj).__name__)}
    else:
        raise ValueError(f"{name}: a {type(obj).__name__} has no array form; use arrays, numbers and strings")
    for part, value in parts.items():
        packed |= pack(f"{name}/{part}", value)
    return packed


def unpack(cls: type[T], name: str, arrays: Mapping[str, NDArray[Any]]) -> T:
    """Rebuild the fitted object that `pack(name, ...)` flattened, bit-identical, with read-only arrays.

    Args:    cls: the expected class, or a union of classes, of which the file names one.
    Raises:  ValueError with the key that is missing or of another type.
    """
    return cast(T, _read(cls, name, arrays))


def _read(hint: Any, name: str, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if hint in _SCALARS:
        return _scalar(hint, name, arrays)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is np.ndarray:
        return _array(get_args(inner[1])[0], name, arrays)
    if origin is tuple:
        length = _scalar(int, f"{name}#", arrays)
        hints = inner[:1] * length if inner[1:] == (...,) else inner
        if len(hints) != length:
            raise ValueError(f"{name}: holds {length} items where {len(hints)} are expected; calibrate again")
        return tuple(_read(one, f"{name}/{i}", arrays) for i, one in enumerate(hints))
    classes = {cls.__name__: cls for cls in (inner if origin in (Union, UnionType) else (hint,))}
    tag = _scalar(str, f"{name}#", arrays)
    if tag not in classes:
        raise ValueError(
            f"{name}: holds a {tag!r} where one of {sorted(classes)} is expected; calibrate again"
        )
    cls = classes[tag]
    hints = get_type_hints(cls)
    return cls(**{f.name: _read(hints[f.name], f"{name}/{f.name}", arrays) for f in fields(cls)})


def _array(dtype: Any, name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    found = _require(name, arrays)
    if dtype is not Any and found.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: holds {found.dtype} where {np.dtype(dtype)} is expected; calibrate again")
    return read_only(found)


def _scalar(hint: type, name: str, arrays: Mapping[str, NDArray[Any]]) -> Any:
    found = _require(name, arrays)
    if found.shape != () or found.dtype.kind != _SCALARS[hint]:
        held = f"{found.dtype}{list(found.shape)}"
        raise ValueError(f"{name}: holds {held} where one {hint.__name__} is expected; calibrate again")
    return found.item()


def _require(name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name}: missing from the file; calibrate again")
    return arrays[name]


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as a compressed `.npz`, atomically; the same arrays give the same bytes.

    Raises:  ValueError for an array of Python objects; OSError if the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for key in sorted(arrays):
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(arrays[key]), allow_pickle=False)
    partial.replace(path)


def load(path: Path, mend: str = "calibrate again", most_bytes: int = MOST_BYTES) -> Arrays:
    """Read every array of a `.npz`, whose sizes are compared before anything is unpacked.

    Args:    mend: what the user can do about a file that cannot be read. most_bytes: of the file, and of all
             arrays together.
    Raises:  ValueError with the path if it is not a regular file, too large, or not a readable archive of
             plain arrays; OSError if it is absent.
    Cost:    the arrays in memory, and no more.
    """
    try:
        return read_npz(path, most_bytes)
    except UNREADABLE as error:
        what = f"({error}); {mend}"
        if isinstance(error, ObjectArray):
            what = f"({error}); save text with astype(str), numbers with astype(float)"
        raise ValueError(f"{path}: not a readable .npz of plain arrays {what}") from error
