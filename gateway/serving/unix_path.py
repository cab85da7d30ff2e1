"""Names of unix sockets in folders whose own path is longer than the address of a unix socket may be.

Linux keeps 107 bytes of it, fewer than the path of a deployment below a build server's workspace may have.
The folder is opened, and the socket is named below its descriptor in `/proc`; it lies where it would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 107
"""Bytes of an address, without the NUL at its end."""


@contextmanager
def unix_address(path: Path) -> Iterator[str]:
    """An address for `path`, to bind or to connect to within the context.

    Raises:  OSError if the folder of a long path cannot be opened.
    """
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
