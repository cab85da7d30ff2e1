"""Archives that would take more memory than allowed, or never end, are refused before they are unpacked."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guards.arrays import load

MOST_BYTES = 1_000_000


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})
    return out.getvalue()


def archive(path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, content in entries:
            target.writestr(name, content)


def bomb(path: Path) -> None:
    archive(path, ("x.npy", header((10**6,)) + bytes(8 * 10**6)))
    assert path.stat().st_size < MOST_BYTES


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


def linked_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def many_small(path: Path) -> None:
    archive(path, *((f"a{i}.npy", header((10**4,)) + bytes(8 * 10**4)) for i in range(20)))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bomb": (bomb, "bytes unpacked, over the 1000000 allowed"),
    "many that are large together": (many_small, "bytes unpacked, over the 1000000 allowed"),
    "a large file": (sparse, "3221225472 bytes, over the 1000000 allowed"),
    "a named pipe": (os.mkfifo, "no regular file"),
    "a link to a device": (linked_to_device, "no regular file"),
    "more values than bytes": (
        lambda path: archive(path, ("x.npy", header((2**50,)) + b"\0" * 64)),
        "declares 9007199254740992 bytes and holds 64",
    ),
    "fewer values than bytes": (
        lambda path: archive(path, ("x.npy", header((2,)) + b"\0" * 64)),
        "declares 16 bytes and holds 64",
    ),
    "any number of empty texts": (
        lambda path: archive(path, ("x.npy", header((2**40,), "<U0"))),
        "declares 0 bytes and holds 0",
    ),
    "a negative size": (
        lambda path: archive(path, ("x.npy", header((-8, -1)) + b"\0" * 64)),
        "declares 64 bytes and holds 64",
    ),
    "packing without a bound": (
        lambda path: archive(path, ("x.npy", header((8,)) + b"\0" * 64), compression=zipfile.ZIP_BZIP2),
        "packed in a way that numpy does not write",
    ),
    "a file that is no array": (lambda path: archive(path, ("x.txt", b"text")), "files that are no arrays"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(tmp_path: Path, case: str) -> None:
    make, told = REFUSED[case]
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(ValueError, match=r"a\.npz: not a readable \.npz of plain arrays") as refused:
        load(path, most_bytes=MOST_BYTES)
    assert told in str(refused.value)


def test_takes_what_numpy_writes(tmp_path: Path) -> None:
    wanted = {
        "a": np.arange(6).reshape(2, 3).T,
        "b": np.array(["é", ""]),
        "c": np.zeros((0, 4)),
        "d": np.array(7),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", a=wanted["a"], b=wanted["b"], c=wanted["c"], d=wanted["d"])
        found = load(tmp_path / "a.npz", most_bytes=MOST_BYTES)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], array) for name, array in wanted.items())
