"""A ledger's file: a snapshot, then what has changed since, in frames. And the ledger's clock.

A frame is on the disk before its grants are given out, so that a crash forgets nothing that was granted; what
replicas had spent of initial slices and not yet reported is lost with the replicas alone. A file that is
missing or damaged, at its end too, is one that has forgotten something: what can be read of it holds, and
every bucket is empty when it is opened (`floor_s`).

**Time.** No step of the system's clock makes or takes a budget: the ledger counts the seconds since the start
of the machine (CLOCK_BOOTTIME, which counts sleep). After another start, or on another machine, nothing has
passed since the last frame: debts are as they were then, and buckets fill from there. So what a machine was
off is not credited. A debt ends at latest as long after the start as it was when it was written down.

    frame:    length of the payload, its CRC-32, payload
    first:    magic, boot (36 bytes), ledger's time less seconds since the boot, floor
    others:   ledger's time, count of replicas, (16 bytes, last number) ..., (key, its time) ...
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from gateway.ledger.book import Book
from gateway.private_files import FILE_MODE, make_private_folder, read_own, write_private_file

MAGIC: Final = b"budgets1"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_FRAME, _FIRST, _TIMES, _REPLICA = (struct.Struct(form) for form in ("<II", "<8s36sdd", "<dI", "<16sQ"))
_BUCKETS: Final = np.dtype([("key", "V16"), ("tat", "<f8")])
COMPACT_BYTES: Final = 4 * 2**20
"""A file is written anew when it is so much larger than it was, and twice as large."""
log = logging.getLogger(__name__)


class MachineClock(NamedTuple):
    """boot: names this start of the machine, 36 bytes; running: seconds since then, also in sleep."""

    boot: bytes
    running: Callable[[], float]

    @classmethod
    def of_this_machine(cls) -> MachineClock:
        boot = BOOT_ID.read_bytes().strip() if BOOT_ID.is_file() else b""
        return cls(boot.ljust(36)[:36], _running_s)


def _running_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Journal:
    """The file of one ledger, for one process. `book` is what it holds."""

    def __init__(self, path: Path, clock: MachineClock | None = None) -> None:
        """Opens or makes the file. Blocks.

        Raises:  BlockingIOError if another process has it open; OSError.
        """
        self._path, self._clock = path, clock or MachineClock.of_this_machine()
        make_private_folder(path.parent)
        self._lock = _locked(path.with_name(f"{path.name}.lock"))
        self._offset_s, self._latest_s = -self._clock.running(), 0.0
        self.book = Book()
        self._read()
        self._file, self._whole = -1, True
        self.compact()

    def now_s(self) -> float:
        """The ledger's time in seconds; never goes back."""
        self._latest_s = max(self._latest_s, self._offset_s + self._clock.running())
        return self._latest_s

    def append(self, replica: bytes, number: int, changed: list[tuple[bytes, float]]) -> None:
        """Writes down a batch and waits until it is on the disk. Raises OSError; then it may be or not."""
        body = b"".join(key + struct.pack("<d", tat_s) for key, tat_s in changed)
        frame = _frame(_TIMES.pack(self._latest_s, 1) + _REPLICA.pack(replica, number) + body)
        if not self._whole:
            return self.compact()  # it holds this batch as well
        self._whole = False
        if os.write(self._file, frame) != len(frame):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fdatasync(self._file)
        self._whole = True
        self._bytes += len(frame)
        if self._bytes > 2 * self._compacted_bytes + COMPACT_BYTES:
            self.compact()
        return None

    def compact(self) -> None:
        """Writes the file anew, with what is not over. Blocks: 50 ms for a million keys. Raises OSError."""
        keys, tats_s, numbers = self.book.content()
        live = tats_s > self.now_s()
        buckets = np.empty(int(live.sum()), _BUCKETS)
        buckets["key"], buckets["tat"] = keys[live], tats_s[live]
        first = _FIRST.pack(MAGIC, self._clock.boot, self._offset_s, self.book.floor_s)
        times = _TIMES.pack(self._latest_s, len(numbers))
        replicas = b"".join(_REPLICA.pack(*one) for one in numbers.items())
        body = _frame(first) + _frame(times + replicas + buckets.tobytes())
        write_private_file(self._path, body)
        self._bytes = self._compacted_bytes = len(body)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._whole = True

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    def _read(self) -> None:
        try:
            frames = _frames(read_own(self._path))
            magic, boot, offset_s, self.book.floor_s = _FIRST.unpack(next(frames))
            if magic != MAGIC:
                raise ValueError("it is of another version")
            for payload in frames:
                self._take(payload)
            self._follow(boot, offset_s)
        except (FileNotFoundError, ValueError, struct.error, StopIteration) as error:
            self._offset_s = self._latest_s - self._clock.running()
            self.book.floor_s = self.now_s()
            what = "%s is missing or damaged (%s): every budget begins empty and fills at its rate"
            log.log(
                logging.INFO if isinstance(error, FileNotFoundError) else logging.ERROR,
                what,
                self._path,
                error,
            )

    def _take(self, payload: bytes) -> None:
        self._latest_s, count = _TIMES.unpack_from(payload)
        end = _TIMES.size + count * _REPLICA.size
        for at in range(_TIMES.size, end, _REPLICA.size):
            self.book.note(*_REPLICA.unpack_from(payload, at))
        for key, tat_s in np.frombuffer(payload, _BUCKETS, offset=end).tolist():
            self.book.put([(bytes(key), tat_s)], self._latest_s)

    def _follow(self, boot: bytes, offset_s: float) -> None:
        """Goes on from the file's time: with all that has passed if the machine runs since then."""
        running_s = self._clock.running()
        same = boot.strip() and boot == self._clock.boot and offset_s + running_s >= self._latest_s
        self._offset_s = offset_s if same else self._latest_s - running_s


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(content: bytes) -> Iterator[bytes]:
    """The payloads in order. Raises ValueError after the last one if the rest is no frame."""
    at = 0
    while at < len(content):
        if len(content) < at + _FRAME.size:
            raise ValueError("its last frame is cut short")
        length, check = _FRAME.unpack_from(content, at)
        payload = content[at + _FRAME.size : at + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != check:
            raise ValueError(f"the frame at byte {at} is damaged")
        yield payload
        at += _FRAME.size + length
