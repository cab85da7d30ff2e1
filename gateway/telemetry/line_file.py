"""A private file of lines, rotated at 64 MiB; the oldest are deleted when there is more than is kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from gateway.private_files import FILE_MODE, OTHERS, make_private_folder

ROTATE_BYTES = 64 * 2**20
KEEP_BYTES = 4 * 2**30
log = logging.getLogger(__name__)


class LineFile:
    """Opened anew for each append, since an operator may move it away.

    keep_bytes: of this file and its siblings together, may be changed at any time; siblings: a pattern of the
    names of files in its folder, those of earlier processes and other replicas.
    """

    def __init__(self, path: Path, keep_bytes: int = KEEP_BYTES, siblings: str = "") -> None:
        self._path = path
        self.keep_bytes = keep_bytes
        self._siblings = siblings or f"{path.stem}*{path.suffix}"
        self._since_check_bytes = ROTATE_BYTES  # so that the first append checks
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
        self._since_check_bytes += len(text)
        if self._since_check_bytes > min(ROTATE_BYTES, self.keep_bytes // 8):
            self._since_check_bytes = 0
            try:
                self._delete_oldest()
            except OSError:  # the lines are written all the same
                log.exception("old files beside %s cannot be deleted", self._path)

    def _delete_oldest(self) -> None:
        """Deletes the files that were written to least lately, but this one, until the others fit."""
        kept_bytes = 0
        for _, size, path in sorted(self._sizes(), reverse=True):
            kept_bytes += size
            if kept_bytes > self.keep_bytes and path != self._path:
                path.unlink(missing_ok=True)
                log.warning("deleted %s: the audit log has more than %d bytes", path, self.keep_bytes)

    def _sizes(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was last written to, its size, and where it is."""
        for path in self._path.parent.glob(self._siblings):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another replica has deleted it
            yield stat.st_mtime, stat.st_size, path


def _open_private(path: str, flags: int) -> int:
    """Opens or makes a file for its owner alone, whatever the umask."""
    descriptor = os.open(path, flags, FILE_MODE)
    if os.fstat(descriptor).st_mode & OTHERS:
        os.fchmod(descriptor, FILE_MODE)
    return descriptor
