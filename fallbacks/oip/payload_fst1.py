"""Reads payloads of the format FST1, in which earlier releases stored cases and the answers of upstreams.

A head that describes the tensors, then their values in C order, with nothing left over:

    FST1  count:u16  { name_length:u16  name:utf-8  dtype:3 bytes  rank:u8  dims:u64[rank] }  values...

Numbers are little-endian. Byte strings (dtype `|S*`, in numpy objects that are `bytes`) are a length:u32 and
that many bytes each.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"FST1"
MAX_PAYLOAD_RANK: Final = 32
CODES: Final = ("|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8)))
FST1_DTYPES: Final = {code.encode(): np.dtype(code) for code in CODES} | {b"|S*": np.dtype(np.object_)}


def decode_fst1(content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors in a payload, as new writable arrays. The bytes need not be trusted.

    Raises: ValueError for anything but this format.
    Cost:   memory for the values once more.
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
    """One tensor of byte strings, and the offset of the next."""
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
    """One tensor's entry of the head, and the offset of the next."""
    (length,) = struct.unpack_from("<H", content, at)
    at += 2
    name = content[at : at + length].decode()
    code, rank = struct.unpack_from("<3sB", content, at + length)
    if code not in FST1_DTYPES or rank > MAX_PAYLOAD_RANK:
        raise ValueError(f"{name!r}: {code!r} of rank {rank} is not allowed")
    at += length + 4
    shape = struct.unpack_from(f"<{rank}Q", content, at)
    return name, FST1_DTYPES[code], shape, at + 8 * rank
