"""Reads files whose path others may have chosen: regular ones only, whole, and of a bounded size."""

from __future__ import annotations

import os
import stat


def read_regular(path: str | os.PathLike[str], limit_bytes: int, smaller: str) -> bytes:
    """The bytes of a regular file (or of a link to one), at most `limit_bytes` of them.

    Args:   smaller: what a user can do about a file that is too large.
    Raises: ValueError (file, what is wrong, how to mend it), also if it is missing.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(
            f"{name}: cannot be read ({error.strerror}); check the path and its owner"
        ) from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{name}: not a regular file; give the path of one file")
        if about.st_size > limit_bytes:
            raise ValueError(f"{name}: {about.st_size} bytes, over the {limit_bytes} allowed; {smaller}")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(about.st_size + 1)
    finally:
        os.close(handle)
    if len(content) != about.st_size:
        raise ValueError(
            f"{name}: changed while it was read; write it elsewhere first, then rename it into place"
        )
    return content
