"""A private file of lines that is only appended to, and rotated at 64 MiB."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.private_files import FILE_MODE, OTHERS, make_private_folder

ROTATE_BYTES = 64 * 2**20


class LineFile:
    """Opened anew for each append, since an operator may move it away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_failed = False
        self._rotated = 0

    def append(self, lines: list[bytes]) -> None:
        """Writes lines, and makes the folder and the file where they are missing.

        Raises:  OSError; part of a line may be written then, which the next call ends first.
        Cost:    60 us.
        """
        try:
            self._append(b"\n".join(lines) + b"\n")
        except OSError:
            self._last_failed = True
            raise
        self._last_failed = False

    def _append(self, text: bytes) -> None:
        if not self._path.parent.exists():
            make_private_folder(self._path.parent)
        if self._path.exists() and self._path.stat().st_size > ROTATE_BYTES:
            self._rotated += 1
            self._path.replace(self._path.with_suffix(f".{self._rotated}.jsonl"))
            self._last_failed = False
        with open(self._path, "ab+", opener=_open_private) as file:
            if self._last_failed and file.tell():
                file.seek(-1, 2)
                text = text if file.read(1) == b"\n" else b"\n" + text
            file.write(text)


def _open_private(path: str, flags: int) -> int:
    """Opens or makes a file for its owner alone, whatever the umask."""
    descriptor = os.open(path, flags, FILE_MODE)
    if os.fstat(descriptor).st_mode & OTHERS:
        os.fchmod(descriptor, FILE_MODE)
    return descriptor
