"""Counts the calibrations that have used the same rows: `var/calibrations.jsonl` in a deployment's folder.

A promise at a confidence of 95 % may fail on one file of rows in twenty. Policies, models or seeds tried on
the same rows until one passes find that one, and its promise is worth less than the certificate says. So
every attempt is recorded before it uses labels, passed or not, and the certificate says how many there were.

A line holds when, a digest of what was calibrated on what, how many distinct rows there were, and the
smallest 256 of their 64-bit hashes (`row_hashes.py`): a bottom-k sketch (Cohen and Kaplan, 2007), from which
the overlap of two files follows. It holds no row, but a row that can be guessed can be looked for; only the
owner can read the file.

Two files overlap if they share more than 5 % of the smaller one's distinct rows: a random half and the whole
file, two random halves, a file and its shuffle all do. What this may not see: a file of less than one
hundredth of the other's rows (fewer than 2.6 of its hashes are expected among the other's smallest 256), rows
changed in a single byte, and attempts in a copy of the folder without `var`. New rows of a coarse table look
like the old ones and are counted as the same, which says too many attempts, not too few.

The file is only appended to, one line in one write, under the lock of the folder. From 1,000 lines on, the
oldest are dropped and a warning is logged: counts then leave them out. A last line without its end, left by a
crash before any label was used, is ignored and removed; any other invalid line makes the file invalid.
"""

from __future__ import annotations

import base64
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from gateway.calibration.row_hashes import Hashes
from gateway.core.errors import ArtifactError, Problem
from gateway.policy.fields import Strict

ATTEMPTS_FILE = "calibrations.jsonl"
SKETCH_HASHES = 256
SHARED_ROWS = 0.05
"""Files that share more than this share of the smaller one's distinct rows overlap."""
MOST_LINES, KEPT_LINES = 1_000, 900
FILE_MODE = 0o600
log = logging.getLogger(__name__)


class Attempt(Strict):
    """One line of the file.

    time_s: Unix time; what: a digest; rows: distinct ones; hashes: base64 of the sketch, as `<u8`.
    """

    time_s: float
    what: str
    rows: Annotated[int, Field(ge=1)]
    hashes: Annotated[str, Field(min_length=8)]

    @classmethod
    def of(cls, rows: Hashes, what: str, now_s: float) -> Attempt:
        """An attempt on rows with these hashes, in any order, repeated or not."""
        distinct = np.unique(rows)
        encoded = base64.b64encode(distinct[:SKETCH_HASHES].astype("<u8").tobytes()).decode()
        return cls(time_s=now_s, what=what, rows=len(distinct), hashes=encoded)

    @property
    def sketch(self) -> Hashes:
        """uint64[k]: ascending. Raises ValueError if the field is no such array."""
        held = np.frombuffer(base64.b64decode(self.hashes, validate=True), "<u8").astype(np.uint64)
        if len(held) != min(self.rows, SKETCH_HASHES) or (held[1:] <= held[:-1]).any():
            raise ValueError("hashes: no ascending hashes of as many rows")
        return held


def record_attempt(var: Path, rows: NDArray[np.uint64], what: str, now_s: float) -> int:
    """How many different attempts, this one included, have used rows that overlap with these; records it.

    Args:    var: a folder, made if missing; rows: `row_hashes` of the file, at least one; what: a digest of
             policy, models and data. An attempt on file with the same `what` has the same result: it counts
             once, and no line is added.
    Raises:  ArtifactError naming the file, and the line if one is invalid; nothing is recorded then, and the
             labels must not be used.
    Cost:    O(n log n); 0.2 s with a full file.
    """
    path = var / ATTEMPTS_FILE
    attempt = Attempt.of(rows, what, now_s)
    try:
        with _lock(var):
            content = path.read_bytes() if path.exists() else b""
            before = list(_parse(content, path))
            if all(other.what != what for other, _ in before):
                _append(path, content, orjson.dumps(attempt.model_dump()))
    except OSError as error:
        what_failed = f"attempts at calibration cannot be recorded: {error.strerror or error}"
        raise ArtifactError([Problem("", what_failed, str(path))]) from error
    mine = attempt.sketch
    overlapping = {
        other.what
        for other, sketch in before
        if overlap(mine, attempt.rows, sketch, other.rows) > SHARED_ROWS
    }
    return len(overlapping | {what})


def overlap(one: Hashes, one_rows: int, other: Hashes, other_rows: int) -> float:
    """The share of the smaller file's distinct rows that the other holds too, estimated from sketches.

    Of the smaller file's hashes up to the largest that both sketches would hold, the share that both do hold.
    Exact where both files have at most 256 distinct rows.
    """
    smaller = one if one_rows <= other_rows else other
    cut_short = [s[-1] for s, rows in ((one, one_rows), (other, other_rows)) if rows > len(s)]
    known = min(cut_short, default=np.uint64(2**64 - 1))
    common = np.intersect1d(one, other)
    return float((common <= known).sum()) / max(int((smaller <= known).sum()), 1)


def _parse(content: bytes, path: Path) -> Iterator[tuple[Attempt, Hashes]]:
    """The lines with their sketches, but for a last one without its end.

    Raises:  ArtifactError naming the line.
    """
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            attempt = Attempt.model_validate(orjson.loads(line))
            yield attempt, attempt.sketch
        except ValueError as error:
            what = (
                "is no record of an attempt at calibration; restore it (without it, attempts count too low)"
            )
            raise ArtifactError([Problem("", what, str(path), number)]) from error


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, made if missing, against other processes and threads. Blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)  # a new name in the folder
    finally:
        os.close(descriptor)


def _append(path: Path, content: bytes, line: bytes) -> None:
    """Appends a line in one write; or, to a full file, replaces it by one without its oldest lines."""
    lines = content.split(b"\n")
    if lines[-1]:
        log.warning("the last line of %s was cut short: it is removed", path)
    if len(lines) > MOST_LINES:
        log.warning("%s holds %d attempts: the oldest are dropped", path, len(lines) - 1)
        draft = path.with_name(f"{path.name}.draft")
        draft.unlink(missing_ok=True)
        _write(draft, [*lines[-1 - KEPT_LINES : -1], line], os.O_EXCL)
        draft.replace(path)
    else:
        _write(path, [line], os.O_APPEND, len(content) - len(lines[-1]))


def _write(path: Path, lines: Sequence[bytes], flag: int, end: int = 0) -> None:
    """Writes lines after the first `end` bytes of a file for its owner alone, and waits for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        os.ftruncate(descriptor, end)
        text = b"".join(one + b"\n" for one in lines)
        if os.write(descriptor, text) != len(text):
            raise OSError("the disk is full")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
