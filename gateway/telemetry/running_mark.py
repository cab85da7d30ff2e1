"""Says in the audit log that records may be missing where a process was killed before it had written them.

While a log is written there is a mark beside it, a locked file `NAME.running`, which a clean end removes. The
lock ends with the process, however that ends: so a mark without a lock is of a process that was killed. The
next start in that folder adds to its log

    {"gap": null, "at_most": RECORDS, "from_t": UNIX_SECONDS, "t": UNIX_SECONDS}

`gap`: how many records are missing, which is not known; `from_t`: of the last record that was written, or of
the process's start if none was; `t`: when the gap was noticed. A last line that was cut short is removed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from fallbacks.worker import Worker
from gateway.private_files import FILE_MODE
from gateway.telemetry.audit import BUFFER_ROWS
from gateway.telemetry.delivery import FLUSH_ROWS, FLUSH_TIMEOUT_S, SLICE_ROWS

SUFFIX: Final = ".running"
MOST_UNWRITTEN: Final = BUFFER_ROWS + FLUSH_ROWS + SLICE_ROWS
"""Records that a process can have in none of its files: a full buffer, and the flush under way."""
TAIL_BYTES: Final = 2**20
"""So much of a log is searched for its last record; a line has at most a few thousand bytes."""
log = logging.getLogger(__name__)


class RunningMark:
    """The mark of one log. `make` it when the process begins to serve; `remove` it at a clean end."""

    def __init__(self, log_path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = log_path.with_name(log_path.name + SUFFIX)
        self._clock = clock
        self._lock, self._over = threading.Lock(), False
        self._held: int | None = None

    def make(self) -> None:
        """Logs where it cannot be made: a kill is then not noticed. Does nothing after `remove`. Blocks."""
        draft = self._path.with_name(self._path.name + ".draft")  # no start may see it before it is locked
        with self._lock:
            if self._over:
                return
            try:
                self._held = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(self._held, orjson.dumps({"started": self._clock()}))
                draft.rename(self._path)
            except OSError as error:
                what = (
                    "%s cannot be made: %s; after a kill the audit log will not say that records are missing"
                )
                log.warning(what, self._path, error)

    def remove(self) -> None:
        """Everything is in the log. Idempotent; blocks; logs what fails."""
        with self._lock:
            self._over = True
            if self._held is None:
                return
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", self._path, error)
            os.close(self._held)
            self._held = None


async def change_in_thread(change: Callable[[], None]) -> None:
    """Makes or removes a mark in a thread, which is given up if the disk hangs for two seconds."""
    worker = Worker("audit-mark")
    try:
        await asyncio.wait_for(worker.call(change), FLUSH_TIMEOUT_S)
    except TimeoutError:
        log.warning("the mark of a running audit log cannot be written: the disk does not answer")
    finally:
        worker.close(0.0)


def note_killed(folder: Path, clock: Callable[[], float] = time.time) -> None:
    """Says in the logs of a folder whose process was killed that records may be missing. Blocks.

    Logs each; one that cannot be changed is left to the next start.
    """
    for mark in sorted(folder.glob(f"*.jsonl{SUFFIX}")):
        try:
            _note(mark, clock())
        except BlockingIOError:
            continue  # its process runs, or another one is noting it
        except OSError as error:
            log.warning("%s: it cannot be noted that this process was killed: %s", mark, error)


def _note(mark: Path, now_s: float) -> None:
    """Notes one, and removes its mark. Raises OSError; BlockingIOError if its process runs."""
    held = os.open(mark, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(held).st_nlink:
            return  # another start has noted it
        started_s = _number(os.read(held, 4096), "started")
        log_path = mark.with_name(mark.name.removesuffix(SUFFIX))
        _append_gap(log_path, started_s, now_s)
        mark.unlink(missing_ok=True)
        log.warning(
            "%s: its process was killed, and up to %d records may be missing", log_path, MOST_UNWRITTEN
        )
    finally:
        os.close(held)


def _append_gap(path: Path, started_s: float | None, now_s: float) -> None:
    """Adds the gap to a log, which is made if it is missing, and keeps its time of change."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, FILE_MODE), "r+b") as file:
        before = os.fstat(file.fileno())
        file.seek(max(0, before.st_size - TAIL_BYTES))
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if cut := len(tail) - len(whole):
            file.truncate(before.st_size - cut)
            log.warning("%s: its last line was cut short, and is removed", path)
        last_s = next(
            (t for line in reversed(whole.splitlines()) if (t := _number(line, "t")) is not None), None
        )
        gap = {"gap": None, "at_most": MOST_UNWRITTEN, "from_t": last_s or started_s, "t": now_s}
        file.write(orjson.dumps(gap) + b"\n")
    if before.st_size:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _number(line: bytes, name: str) -> float | None:
    """A number in a line of JSON; None where it has none."""
    try:
        held: Any = orjson.loads(line)
    except ValueError:
        return None
    number = held.get(name) if isinstance(held, dict) else None
    return number if isinstance(number, int | float) and not isinstance(number, bool) else None
