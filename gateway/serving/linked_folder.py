"""A private folder with a second, short path, for programs whose unix sockets lie deep in it.

The folder lies below the one for state. A link in a private folder of `/tmp` leads to it, so that the paths
of sockets fit into the 107 bytes of an address however deep the deployment is. Folders that were left by a
process that was killed are removed when the next one is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.private_files import make_private_folder, write_lock

SHORT_FOLDERS = Path("/tmp")  # noqa: S108 (what is made there is named by mkdtemp, with mode 0700)
LINK, SHORT_PATH_FILE = "f", "short_path"


@dataclass(frozen=True, slots=True)
class LinkedFolder:
    """path: the short one. Its content lies in `folder`. lock: the descriptor that says that it is in use."""

    path: Path
    folder: Path
    lock: int

    @classmethod
    def make(cls, inside: Path) -> LinkedFolder:
        """A new folder below `inside`, which is made if missing. Raises OSError."""
        make_private_folder(inside)
        with write_lock(inside):
            for left in inside.iterdir():
                _remove_if_unused(left)
            folder = Path(tempfile.mkdtemp(dir=inside)).resolve()
            lock = _lock(folder)
        path = Path(tempfile.mkdtemp(prefix="fsg-", dir=SHORT_FOLDERS)) / LINK
        path.symlink_to(folder)
        (folder / SHORT_PATH_FILE).write_text(str(path))
        return cls(path, folder, lock)

    def close_to_others(self) -> None:
        """Takes from others what they may do with the folder and all that is in it now."""
        for at, folders, files in os.walk(self.folder):
            for path in (Path(at), *(Path(at, name) for name in (*folders, *files))):
                with suppress(FileNotFoundError):  # a file that its program has removed meanwhile
                    mode = path.lstat().st_mode
                    if mode & 0o077 and not path.is_symlink():
                        path.chmod(mode & 0o700)

    def remove(self) -> None:
        """Removes the folder, the link and the folder of the link. Idempotent, but for the lock."""
        _remove(self.folder)
        os.close(self.lock)


def _lock(folder: Path) -> int:
    """Locks a folder as long as the descriptor is open in this process. Raises BlockingIOError if it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_if_unused(folder: Path) -> None:
    try:
        lock = _lock(folder)
    except OSError:  # in use, or no folder
        return
    _remove(folder)
    os.close(lock)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        link = Path((folder / SHORT_PATH_FILE).read_text())
        if link.is_symlink() and link.parent.parent == SHORT_FOLDERS:
            link.unlink()
            link.parent.rmdir()
    shutil.rmtree(folder, ignore_errors=True)
