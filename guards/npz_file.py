"""Reads a `.npz` within bounds: what it declares is compared with what it holds before it is unpacked.

numpy believes the header of an array, and a zip archive of a few megabytes unpacks to any size. Here a file
takes as much memory as its arrays, which is known before the first of them is read.
"""

from __future__ import annotations

import math
import os
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray


class ObjectArray(ValueError):
    """An array of Python objects, which only a pickle could hold."""


UNREADABLE: Final = (
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)

_HEADERS: Final = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}


def read_npz(path: Path, most_bytes: int) -> dict[str, NDArray[Any]]:
    """Every array by its name.

    Args:    most_bytes: of the file, and of all arrays together.
    Raises:  one of UNREADABLE for anything but a regular file of plain arrays that are as large as they
             declare, and no larger than allowed; OSError if it is absent.
    """
    held: dict[str, NDArray[Any]] = {}
    with _open_regular(path, most_bytes) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _refuse_large(entries, most_bytes)
        for entry in entries:
            key = entry.filename.removesuffix(".npy")
            if key in held or key == entry.filename:
                raise ValueError("it holds files that are no arrays, or two of one name")
            held[key] = _read_member(archive, entry)
    return held


def _open_regular(path: Path, most_bytes: int) -> BinaryIO:
    """The file, opened. Raises ValueError for a pipe, a device or too many bytes; OSError."""
    # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    about = os.fstat(file.fileno())
    if stat.S_ISREG(about.st_mode) and about.st_size <= most_bytes:
        return file
    file.close()
    what = f"{about.st_size} bytes, over the {most_bytes} allowed"
    raise ValueError(what if stat.S_ISREG(about.st_mode) else "it is no regular file")


def _refuse_large(entries: Sequence[zipfile.ZipInfo], most_bytes: int) -> None:
    """Raises ValueError where the archive announces too much, or would be unpacked without a bound."""
    if (total := sum(entry.file_size for entry in entries)) > most_bytes:
        raise ValueError(f"its arrays have {total} bytes unpacked, over the {most_bytes} allowed")
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename} is packed in a way that numpy does not write")


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. Raises ValueError unless its header declares exactly the bytes that follow it."""
    with archive.open(entry) as file:
        major, _ = np.lib.format.read_magic(file)
        read_header = _HEADERS.get(major)
        if read_header is None:
            raise ValueError(f"{entry.filename} is of version {major} of the format")
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ObjectArray(f"{entry.filename.removesuffix('.npy')} holds Python objects")
        values = math.prod(map(int, shape))
        declared, given = values * dtype.itemsize, entry.file_size - file.tell()
        if declared != given or min(shape, default=0) < 0 or (values and not dtype.itemsize):
            raise ValueError(f"{entry.filename} declares {declared} bytes and holds {given}")
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
