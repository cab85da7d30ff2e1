"""Writes private files of lines so that a crash at any moment loses nothing written before.

Every writer holds the lock of the folder; readers need none: they see a file before or after a change, or,
during an append, a last line without its end.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_MODE = 0o600
log = logging.getLogger(__name__)


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if missing, against other processes and threads.

    Blocks. Not reentrant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes, complete: Callable[[bytes], bool]) -> None:
    """Appends a line in one write and waits until it is on the disk.

    Args:    complete: whether a last line without its line end is complete; else it is removed.
    Raises:  OSError; then the line, or part of it, may be in the file.
    """
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        before = b""
        if last := content[end:].strip():
            if complete(last):
                before = b"\n"
            else:
                os.ftruncate(descriptor, end)
                log.warning("the last line of %s was cut short: it is removed", path)
        text = before + line + b"\n"
        if os.write(descriptor, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        _sync_folder(path.parent)


def write_private_file(path: Path, body: bytes) -> None:
    """Makes or replaces a file in one step, readable by its owner alone."""
    partial = path.with_name(f"{path.name}.draft")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, FILE_MODE)
        file.write(body)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)
    _sync_folder(path.parent)


def convert_list(old: Path, new: Path, lines_of: Callable[[bytes], list[bytes]]) -> None:
    """Writes a file of lines from an old file in another form, then renames the old one to `*.converted`.

    A process that ends between the two steps leaves both files. The new one is valid then, and the next call
    renames the old one: otherwise deleting the new file would restore all keys.

    Raises:  FileNotFoundError without the old file; ValueError from `lines_of`, with both files as they were.
    """
    content = old.read_bytes()
    if not new.exists():
        lines = lines_of(content)
        write_private_file(new, b"".join(line + b"\n" for line in lines))
        log.info("%s was made from %s: %d lines", new, old, len(lines))
    else:
        log.warning("%s is ignored, since there is %s", old, new)
    kept = old.with_name(f"{old.name}.converted")
    while kept.exists():
        kept = kept.with_name(f"{kept.name}.converted")
    old.rename(kept)
    _sync_folder(old.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
