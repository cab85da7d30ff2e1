"""Private files of lines, in private folders, written so that a crash at any moment loses nothing.

Every writer holds the lock of the folder; readers need none: they see a file before or after a change, or,
during an append, a last line without its end. What only its owner can have written is read with `read_own`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS, OTHERS_WRITE = 0o077, 0o022
ROOT = 0
log = logging.getLogger(__name__)


def make_private_folder(folder: Path) -> None:
    """Makes a folder for its owner alone, with the folders above it, or closes one of ours to others.

    Raises:  OSError, also if the folder belongs to another user or is one that users share, such as `/tmp`.
    Cost:    2 us where there is nothing to do.
    """
    try:
        held = folder.stat()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        held = folder.stat()
    mode = stat.S_IMODE(held.st_mode)
    if held.st_uid != os.geteuid():
        raise _refused(
            folder, f"belongs to user {held.st_uid}: name a folder of its own, or make it ours (chown)"
        )
    if mode & stat.S_ISVTX and mode & OTHERS_WRITE:
        raise _refused(folder, "is shared by users: name a folder of its own below it")
    if mode & OTHERS and folder.is_symlink():
        raise _refused(folder, f"leads to a folder that others can open (mode {mode:o}): chmod 700 that one")
    if mode & OTHERS or mode & FOLDER_MODE != FOLDER_MODE:
        folder.chmod(FOLDER_MODE)
        log.info("%s had mode %o: now it is for its owner alone", folder, mode)


def read_own(path: Path) -> bytes:
    """The content of a regular file that no user but its owner, this one or root, can have written.

    Raises:  OSError, which says why a file of others, a link, a folder or a pipe is not read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(path, "is a link: put the file itself there") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if why := not_own(os.fstat(descriptor)):
            raise _refused(path, why)
        return file.read()


def not_own(held: os.stat_result) -> str:
    """Why what a file holds may be another user's writing; empty if it cannot be."""
    if not stat.S_ISREG(held.st_mode):
        return "is no regular file"
    if held.st_uid not in (os.geteuid(), ROOT):
        return f"belongs to user {held.st_uid}: only a file of ours, or of root, is believed"
    if held.st_mode & OTHERS_WRITE:
        mode = stat.S_IMODE(held.st_mode)
        return f"may be written by others (mode {mode:o}): look what it holds, then chmod 600"
    return ""


def _refused(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a private folder, which is made if missing, against other processes and threads.

    Blocks. Not reentrant.
    """
    make_private_folder(folder)
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
        sync_folder(path.parent)


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
    sync_folder(path.parent)


def convert_list(old: Path, new: Path, lines_of: Callable[[bytes], list[bytes]]) -> None:
    """Writes a file of lines from an old file in another form, then renames the old one to `*.converted`.

    A process that ends between the two steps leaves both files. The new one is valid then, and the next call
    renames the old one: otherwise deleting the new file would restore all keys.

    Raises:  FileNotFoundError without the old file; ValueError from `lines_of`, with both files as they were.
    """
    content = read_own(old)
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
    sync_folder(old.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
