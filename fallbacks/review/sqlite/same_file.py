"""Notices that the file of a store is no longer the one at its path: deleted, moved, replaced, or its folder.

SQLite goes on writing to the file that it has opened, also once no path leads there: cases that are put then
would be lost with the process, though their callers have a ticket. So each write asks before its commit and
after it, by name alone (closing any handle of the file would drop this process's locks on it).

A write is refused then, and nothing is made anew: what was there may be moved back, and is used on at once.
Another file in its place, such as a copy that was restored, is used after a restart.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from fallbacks.review.store import StoreError

log = logging.getLogger(__name__)


class _File(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> _File | None:
        """None where there is none. Raises OSError where that cannot be found out."""
        try:
            held = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(held.st_dev, held.st_ino)


class SameFile:
    """The database at a path, which is open now, and its write-ahead log."""

    def __init__(self, path: Path) -> None:
        self._path, self._log_path = path, path.with_name(f"{path.name}-wal")
        self._opened = (_File.at(path), _File.at(self._log_path))
        self._failing = False

    def check(self) -> None:
        """Raises StoreError unless both files are those that were opened, OSError if that is not known.

        Logs when that changes. Cost: 4 us.
        """
        found = (_File.at(self._path), _File.at(self._log_path))
        if found == self._opened:
            if self._failing:
                log.warning("%s is back: the review queue takes cases again", self._path)
            self._failing = False
            return
        path = self._path if found[0] != self._opened[0] else self._log_path
        what = f"{path}: was deleted, moved or replaced while it is open, and no case is stored in it"
        what += "; move it back, or restart the gateway to use what is there now"
        if not self._failing:
            log.error(what)
        self._failing = True
        raise StoreError(what)
