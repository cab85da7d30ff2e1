"""Tensors as bytes, for a case that waits for a person.

Neither pickle (runs code) nor npz (a zip file: small bytes can unpack to huge ones). A head that says what
follows, then the values in C order, with nothing left over:

    FST1  count:u16  { name_length:u16  name:utf-8  dtype:3 bytes  rank:u8  dims:u64[rank] }  values...

Numbers are little-endian. Byte strings (dtype `|S*`, in numpy objects that are `bytes`) are a length:u32 and
that many bytes each, as they travel on the wire.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallbacks.predictor import Tensors

MAGIC: Final = b"FST1"
MAX_RANK: Final = 32
CODES: Final = ("|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8)))
OCTETS: Final = b"|S*"
DTYPES: Final = {code.encode(): np.dtype(code) for code in CODES} | {OCTETS: np.dtype(np.object_)}


def encode(tensors: Tensors) -> bytes:
    """The tensors as bytes that `decode` reads back, equal in name, dtype, shape and every bit.

    Raises: ValueError for a dtype other than bool, integers and floats of 1 to 8 bytes, for objects that are
            not bytes, or for a rank over 32.
    """
    head, values = [MAGIC, struct.pack("<H", _fits(len(tensors)))], []
    for name, array in tensors.items():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        code = OCTETS if array.dtype.kind == "O" else little.dtype.str.encode()
        if code not in DTYPES or array.ndim > MAX_RANK:
            raise ValueError(f"{name!r}: cannot encode {array.dtype} of rank {array.ndim}")
        label = name.encode()
        head.append(struct.pack("<H", _fits(len(label))) + label + code)
        head.append(struct.pack(f"<B{array.ndim}Q", array.ndim, *array.shape))
        values.append(_joined(name, array) if code == OCTETS else little.tobytes())
    return b"".join(head + values)


def _joined(name: str, array: NDArray[np.object_]) -> bytes:
    items = array.reshape(-1).tolist()
    if not all(isinstance(item, bytes) and len(item) <= 0xFFFFFFFF for item in items):
        raise ValueError(f"{name!r}: cannot encode objects other than bytes of up to 4 GiB")
    return b"".join(part for item in items for part in (len(item).to_bytes(4, "little"), item))


def decode(content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors in bytes that anybody may have written, as new writable arrays.

    Raises: ValueError for anything but exactly what `encode` writes.
    Cost:   memory for the values once more; never more than the bytes themselves announce and hold.
    """
    try:
        return _decode(content)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"not an encoded set of tensors: {error}") from error


def _decode(content: bytes) -> dict[str, NDArray[Any]]:
    if not content.startswith(MAGIC):
        raise ValueError("not an encoded set of tensors: no magic number")
    at = len(MAGIC)
    (count,) = struct.unpack_from("<H", content, at)
    at += 2
    specs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for _ in range(count):
        name, dtype, shape, at = _spec(content, at)
        if name in specs:
            raise ValueError(f"{name!r} comes twice")
        specs[name] = dtype, shape
    tensors: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in specs.items():
        if dtype.kind == "O":
            tensors[name], at = _split(name, content, at, shape)
            continue
        size = math.prod(shape) * dtype.itemsize
        part = bytearray(content[at : at + size])
        if len(part) != size or (dtype.kind == "b" and part.strip(b"\0\1")):
            raise ValueError(f"{name!r}: cut short, or no {dtype}")
        tensors[name] = np.ndarray(shape, dtype, part)
        at += size
    if at != len(content):
        raise ValueError(f"{len(content) - at} bytes too many")
    return tensors


def _split(name: str, content: bytes, at: int, shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    """One tensor of byte strings, and where the next begins."""
    count = math.prod(shape)
    if 4 * count > len(content) - at:  # before anything is made that is as large as the head says
        raise ValueError(f"{name!r}: cut short")
    array = np.empty(count, np.object_)
    for i in range(count):
        (length,) = struct.unpack_from("<I", content, at)
        array[i] = content[at + 4 : at + 4 + length]
        if len(array[i]) != length:
            raise ValueError(f"{name!r}: cut short")
        at += 4 + length
    return array.reshape(shape), at


def _spec(content: bytes, at: int) -> tuple[str, np.dtype[Any], tuple[int, ...], int]:
    """One tensor's line of the head, and where the next begins."""
    (length,) = struct.unpack_from("<H", content, at)
    at += 2
    name = content[at : at + length].decode()
    code, rank = struct.unpack_from("<3sB", content, at + length)
    if code not in DTYPES or rank > MAX_RANK:
        raise ValueError(f"{name!r}: {code!r} of rank {rank} is not allowed")
    at += length + 4
    shape = struct.unpack_from(f"<{rank}Q", content, at)
    return name, DTYPES[code], shape, at + 8 * rank


def _fits(length: int) -> int:
    if length > 0xFFFF:
        raise ValueError(f"{length}: more than 65535 tensors, or bytes in a name")
    return length
